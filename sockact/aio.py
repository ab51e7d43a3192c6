"""The rendezvous for a program on asyncio: the calls of the package, to await.

    async with sockact.aio.takeover("/run/app/app.rdv", "web=tcp:8080") as t:
        server = await asyncio.start_server(serve, sock=t.sockets["web"], start_serving=False)
        t.on_drain(lambda: sockact.aio.stop_accepting(server))
        t.on_resume(lambda: sockact.aio.resume_accepting(server))
        await t.ready()
        await server.start_serving()
        while await t.wait_successor():
            ...finish what was accepted
            if await t.wait_successor(0):  # else it has died meanwhile, and this one serves
                break

It is for asyncio alone, on its own event loops or on uvloop's; not for trio. Coming to a path
blocks, so a thread does it; from then on everything runs in the thread of the loop, where a
`Reactor` is one more descriptor and one more timer. The protocol is the one of `sockact.takeover`,
and each of two generations may use either.

What is cancelled while a thread is at work ends at once for whoever waits. The thread cannot be
interrupted: it goes on, for `timeout` seconds at most, and undoes what has come of it.
"""

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from sockact import accepting
from sockact.errors import RendezvousError, TakeoverAbortedError
from sockact.library import definition
from sockact.rendezvous.command import control as _control
from sockact.rendezvous.furnish import Options, come, offer_set
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.take import TIMEOUT, Holding
from sockact.rendezvous.take import drop as _drop
from sockact.rendezvous.take import holdings as _holdings
from sockact.rendezvous.take import put as _put
from sockact.rendezvous.take import take as _take
from sockact.rendezvous.takeover import Phase, Tenure
from sockact.sockets.bind import warn_by_default
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.sockets.task import Warn

stop_accepting = accepting.stop_accepting
resume_accepting = accepting.resume_accepting

_T = TypeVar("_T")
_PAUSE_SECONDS = 0.1
_TURNS = 3


class _Errand:
    """Blocking work in a thread of its own, whose result somebody fetches, or is undone.

    It is no thread of the loop's executor: asyncio.run() would wait for that one at its end.
    """

    def __init__(self, work: Callable[[], _T], undo: Callable[[_T], object]) -> None:
        """Begin."""
        self._work = work
        self._undo: Callable[[Any], object] = undo
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self._result: list[Any] = []
        self._error: BaseException | None = None
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._run,), name="sockact-errand", daemon=True).start()

    def _run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            self._error = error
        else:
            with self._lock:
                self._result.append(result)
        try:
            self._loop.call_soon_threadsafe(self._done.set)
        except RuntimeError:  # the loop is closed, so nobody waits
            self._abandoned = True
        if self._abandoned:
            self._give_up()

    def _give_up(self) -> None:
        with self._lock:
            self._abandoned = True
            results, self._result = self._result, []
        for result in results:
            self._undo(result)

    async def result(self) -> Any:
        """Return what came of it; once only."""
        try:
            await self._done.wait()
        except BaseException:
            self._give_up()
            raise
        if error := self._error:
            try:
                raise error
            finally:
                self._error = None
                del error  # or its traceback and this frame would keep each other
        return self._result.pop()


async def _in_thread(work: Callable[[], _T], undo: Callable[[_T], object]) -> _T:
    """Return what blocking work returns; if this is cancelled, it is undone when it is there."""
    result: _T = await _Errand(work, undo).result()
    return result


def _nothing(_: object) -> None:
    """Undo what leaves nothing behind."""


class _Drive:
    """A reactor as a descriptor and a timer of the running loop."""

    def __init__(self, reactor: Reactor) -> None:
        """Take ownership of `reactor`, and begin."""
        self.loop = asyncio.get_running_loop()
        self._reactor = reactor
        self._timer: asyncio.TimerHandle | None = None
        self._watch()

    def _watch(self) -> None:
        self.loop.add_reader(self._reactor.fileno(), self._step)
        self.schedule()

    def _step(self) -> None:
        try:
            self._reactor.step(0.0)
        except Exception as error:  # noqa: BLE001 - an owner that stopped answering would be worse
            what = {"message": "the rendezvous failed", "exception": error}
            self.loop.call_exception_handler(what)
            self._stop()
            self._timer = self.loop.call_later(_PAUSE_SECONDS, self._watch)
        else:
            self.schedule()

    def schedule(self) -> None:
        """Set the timer anew; to be called after whatever the reactor does not know of."""
        if self._timer:
            self._timer.cancel()
        due = self._reactor.timeout()
        self._timer = None if due is None else self.loop.call_later(due, self._step)

    def _stop(self) -> None:
        self.loop.remove_reader(self._reactor.fileno())
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """End, and close the reactor."""
        self._stop()
        self._reactor.close()


class Rendezvous:
    """This process's time at a rendezvous, as `takeover` and `offer` begin it.

    `close` ends it. It belongs to the loop that it was made in, and its callbacks run there.

    Attributes:
        sockets: The sockets to serve, owned here; closed by `close`. asyncio closes a listener
            together with its server. Give its start_server() the backlog that you want: it calls
            listen(2), with 100, and that counts for everybody who has the socket. A Unix socket
            goes to start_server(), too: from Python 3.13 on start_unix_server() removes the path
            when the server is closed, unless it is told ``cleanup_socket=False``.
    """

    def __init__(self, reactor: Reactor, tenure: Tenure, sockets: SocketSet) -> None:
        """Take ownership of all three, and begin to answer."""
        self.sockets = sockets
        self._tenure = tenure
        self._waiters: list[asyncio.Future[None]] = []
        self._ended = False
        self._pid = os.getpid()
        tenure.watch(self._note)
        self._drive = _Drive(reactor)

    def _note(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        waiter = self._drive.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def _wait(self, phases: tuple[Phase, ...], timeout: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while self._tenure.phase not in phases:
                    await self._change()
        except TimeoutError:
            return self._tenure.phase in phases
        return True

    @property
    def generation(self) -> int:
        """How many owners there have been, this one included."""
        return self._tenure.estate.generation

    @property
    def phase(self) -> str:
        """Where it stands, in words."""
        return self._tenure.phase.value

    @property
    def deadline(self) -> float | None:
        """When the drain must be over, on the monotonic clock; None while there is no limit."""
        return self._tenure.drain_until

    def on_drain(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` when a successor is ready: it must have accept() stopped on return.

        Usable as a decorator. The successor serves as soon as every callback has returned, so this
        is a plain function; `stop_accepting` does it for a server of asyncio.
        """
        self._tenure.call_on_stop(callback)
        return callback

    def on_resume(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` when the successor was lost before the drain was over: accept again.

        Usable as a decorator; a plain function as well.
        """
        self._tenure.on_resume.append(callback)
        return callback

    async def ready(self, timeout: float | None = 30.0) -> None:
        """Say that this process can serve; returns when it is the owner, and may accept.

        Args:
            timeout: Seconds to wait for the former owner; None for as long as it takes.

        Raises:
            TakeoverAbortedError: The former owner broke it off, or did not answer; it goes on
                serving, and this process has to leave the sockets alone.
        """
        self._tenure.ready()
        if not self._ended:
            self._drive.schedule()
        ends = (Phase.LEADING, Phase.STOPPED, Phase.DRAINING, Phase.FAILED, Phase.CLOSED)
        if not await self._wait(ends, timeout):
            while self._tenure.undecided:
                await self._change()
            self._tenure.withdraw()
            if self._tenure.phase is Phase.FAILED:
                await self.close()
                raise TakeoverAbortedError(self._tenure.failure)
        self._check()
        if self._tenure.phase is Phase.CLOSED:
            raise RendezvousError("the rendezvous was closed")

    def _check(self) -> None:
        if self._tenure.phase is Phase.FAILED:
            raise TakeoverAbortedError(self._tenure.failure)

    async def wait_successor(self, timeout: float | None = None) -> bool:
        """Wait until a successor serves; then finish what was accepted, and `close`.

        Once more after that, with a timeout of 0, it says whether the successor is still there.

        Args:
            timeout: Seconds to wait at most; None for ever.

        Returns:
            Whether there is one.

        Raises:
            TakeoverAbortedError: This process has never become, or is no longer, the owner.
        """
        found = await self._wait((Phase.DRAINING, Phase.FAILED, Phase.CLOSED), timeout)
        self._check()
        if found:
            # asyncio calls a handler three turns of the loop after accept(2): one for the
            # transport, one for the protocol, one for its task. Who counts handlers must see all.
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        return self._tenure.phase is Phase.DRAINING

    async def close(self) -> None:
        """End it; a second time does nothing.

        Before `ready` the former owner goes on as if nobody had asked. With a successor this says
        that the drain is over. Otherwise the sockets are closed and the path is removed; but if
        somebody is just taking over, not before they have, or 10 seconds are over, even if this is
        cancelled.
        """
        cancelled: asyncio.CancelledError | None = None
        if os.getpid() != self._pid:
            # In a forked child only its copies of the sockets are its own.
            self._ended = True
            self.sockets.leave()
            return
        self._tenure.catch_up()
        self._tenure.stay_for_taker()
        while self._tenure.undecided:
            try:
                await self._change()
            except asyncio.CancelledError as error:
                cancelled = error
        self._end()
        if cancelled:
            raise cancelled

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        undo = self._tenure.phase in (Phase.PENDING, Phase.VOTED, Phase.FAILED)
        self._tenure.close()
        self._drive.close()
        if undo:
            self.sockets.discard()
        elif self._tenure.was_succeeded:
            self.sockets.leave()
        else:
            self.sockets.close()


class Arriving:
    """The way to a rendezvous: ``await`` gives it, ``async with`` gives it and closes it."""

    def __init__(self, arrive: Callable[[], Coroutine[Any, Any, Rendezvous]]) -> None:
        """Begin nothing yet."""
        self._arrive = arrive
        self._found: Rendezvous | None = None

    def __await__(self) -> Generator[Any, None, Rendezvous]:
        return self._arrive().__await__()

    async def __aenter__(self) -> Rendezvous:
        self._found = await self._arrive()
        return self._found

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._found:
            await self._found.close()


def _undo(found: tuple[Reactor, Tenure, SocketSet]) -> None:
    reactor, tenure, sockets = found
    tenure.close("given up")
    reactor.close()
    sockets.discard()


def takeover(
    path: str,
    *definitions: str,
    timeout: float = 30.0,
    patience: float = 60.0,
    drain: float = 0.0,
    trusted: Sequence[int] = (),
    stream: bool = False,
    warn: Warn = warn_by_default,
) -> Arriving:
    """Take the sockets over from the process that owns `path`, or open them if there is none.

    As `sockact.takeover`, with the same arguments and exceptions; the latter come when it is
    awaited, but for a `ListenTextError`.

    Returns:
        What to use with ``async with``, or to await.
    """
    specs = [definition(text, warn=warn).spec for text in definitions]
    options = Options(timeout, patience, drain, tuple(trusted), stream)

    async def arrive() -> Rendezvous:
        said: list[str] = []
        try:
            found = await _in_thread(partial(come, path, specs, options, said.append), _undo)
        except Exception:
            for line in said:
                warn(line)
            raise
        try:
            for line in said:
                warn(line)
            return Rendezvous(*found)
        except BaseException:
            _undo(found)
            raise

    return Arriving(arrive)


def _copy(sockets: SocketSet) -> SocketSet:
    """Return copies for a thread, which the caller of a cancelled request cannot close under it."""
    copies = SocketSet()
    try:
        for entry in sockets:
            copies.append(NamedSocket(entry.name, os.dup(entry.fileno()), entry.listener))
    except BaseException:
        copies.close()
        raise
    return copies


def offer(
    path: str,
    sockets: SocketSet,
    *,
    timeout: float = 5.0,
    drain: float = 0.0,
    stream: bool = False,
) -> Arriving:
    """Own `path`, and offer copies of `sockets` to whoever may have them.

    As `sockact.offer`, with the same arguments and exceptions. `sockets` belongs to the rendezvous
    once there is one.

    Returns:
        What to use with ``async with``, or to await.
    """
    options = Options(timeout=timeout, drain=drain, stream=stream)

    async def arrive() -> Rendezvous:
        copies = _copy(sockets)

        def work() -> tuple[Reactor, Tenure, SocketSet]:
            with copies:
                return *offer_set(path, copies, options), SocketSet()

        reactor, tenure, _ = await _in_thread(work, _undo)
        return Rendezvous(reactor, tenure, sockets)

    return Arriving(arrive)


async def take(
    path: str, *names: str, timeout: float = TIMEOUT, trusted: Sequence[int] = ()
) -> SocketSet:
    """Get copies of what an owner or a holder has; as `sockact.take`."""
    work = partial(_take, path, *names, timeout=timeout, trusted=trusted)
    return await _in_thread(work, SocketSet.close)


async def put(
    path: str,
    name: str,
    sockets: SocketSet,
    *,
    users: Sequence[int] = (),
    groups: Sequence[int] = (),
    replace: bool = False,
    timeout: float = TIMEOUT,
    trusted: Sequence[int] = (),
) -> None:
    """Give copies of a set to a holder, under a name; as `sockact.put`.

    If it is cancelled, the holder may have it nevertheless.
    """
    copies = _copy(sockets)

    def work() -> None:
        with copies:
            _put(
                path,
                name,
                copies,
                users=users,
                groups=groups,
                replace=replace,
                timeout=timeout,
                trusted=trusted,
            )

    await _in_thread(work, _nothing)


async def drop(
    path: str, *names: str, timeout: float = TIMEOUT, trusted: Sequence[int] = ()
) -> None:
    """Make a holder close sets; as `sockact.drop`.

    If it is cancelled, they may be closed nevertheless.
    """
    await _in_thread(partial(_drop, path, *names, timeout=timeout, trusted=trusted), _nothing)


async def holdings(
    path: str, *, timeout: float = TIMEOUT, trusted: Sequence[int] = ()
) -> list[Holding]:
    """Return what there is at a rendezvous for this process to get; as `sockact.holdings`."""
    return await _in_thread(partial(_holdings, path, timeout=timeout, trusted=trusted), _nothing)


async def control(
    path: str,
    command: str,
    arguments: Mapping[str, object] | None = None,
    *,
    timeout: float | None = TIMEOUT,
    trusted: Sequence[int] = (),
) -> dict[str, object]:
    """Have the owner of a path do something, and return its answer; as `sockact.control`.

    If it is cancelled, the command goes on nevertheless.
    """
    work = partial(_control, path, command, arguments, timeout=timeout, trusted=trusted)
    return await _in_thread(work, _nothing)
