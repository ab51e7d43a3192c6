"""An owner in a thread, with what only a supervisor uses: stored descriptors, commands, changes."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import sockact
from sockact.fd.own import Closing
from sockact.rendezvous.arrive import Parked, close_parked
from sockact.rendezvous.furnish import Options, come, resolved
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.takeover import Phase
from tests.helpers import SECONDS
from tests.rendezvous.peers import until

T = TypeVar("T")


class Supervisor(Closing):
    """A process's time at a rendezvous, driven by a thread.

    Attributes:
        tenure: The tenure; `do` calls what is not to be called while the thread is at work.
        sockets: The sockets.
        specs: Their definitions.
        came: What had been stored with the former owner.
        late: What was stored with it later.
        said: The warnings.
    """

    def __init__(self, path: str, *definitions: str, **options: Any) -> None:
        self.came: list[Parked] = []
        self.late: list[Parked] = []
        self.said: list[str] = []
        self.options = Options(timeout=SECONDS, **options)
        specs = [sockact.definition(text).spec for text in definitions]
        self.specs = [resolved(spec, self.options) for spec in specs]
        self.reactor = Reactor()
        try:
            _, self.tenure, self.sockets = come(
                path,
                self.specs,
                self.options,
                self.said.append,
                reactor=self.reactor,
                stored=self.came,
            )
        except BaseException:
            self.reactor.close()
            raise
        self.tenure.on_stored = self.late.extend
        self._stopping = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            self.reactor.step(None)

    def do(self, work: Callable[[], T]) -> T:
        """Have the thread call `work`, and return what that returns."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                future.set_exception(error)

        self.reactor.post(run)
        return future.result(SECONDS)

    def ready(self) -> None:
        """Be the owner."""
        self.do(self.tenure.ready)
        self.wait(Phase.LEADING)

    def wait(self, phase: Phase) -> None:
        """Wait for a phase."""
        until(lambda: self.tenure.phase is phase, phase.value)

    def close(self) -> None:
        """End it; a second time does nothing."""
        if self._stopping:
            return
        undo = not self.tenure.has_led
        self.do(self.tenure.close)
        self._stopping = True
        self.reactor.post(lambda: None)
        self._thread.join()
        self.reactor.close()
        close_parked([*self.came, *self.late])
        if undo:
            self.sockets.discard()
        elif self.tenure.was_succeeded:
            self.sockets.leave()
        else:
            self.sockets.close()
