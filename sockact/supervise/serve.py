"""One run of a service, at work: its processes, what they say, and how long they may take."""

import collections
import logging
import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence

from sockact import service_directives as d
from sockact.activation.execution import Step
from sockact.activation.hear import Ear, Heard
from sockact.activation.message import Access, Message, accepts
from sockact.activation.receive import own_pidfd_id
from sockact.errors import CredentialsError, LaunchError, SockactError
from sockact.fd.pidfd import pid_of
from sockact.rendezvous.react import READ
from sockact.spec import INFINITY, ServiceSpec
from sockact.supervise import family
from sockact.supervise.exit import Exit
from sockact.supervise.fork import Process, is_child
from sockact.supervise.given import Given
from sockact.supervise.house import House, log, new_invocation
from sockact.supervise.instance import SUCCESS, Act, Entered, Kill, KillCommand, Life, Plan, Run
from sockact.supervise.prepare import Preparer
from sockact.supervise.store import FdStore
from sockact.supervise.tables import COMMANDS, IS_OVER, IS_STARTING, IS_UP
from sockact.supervise.tables import Instance as State
from sockact.unitfile.command import Command

SECOND = 1_000_000

_COMMANDS = {
    row.name: row
    for row in (
        d.EXEC_CONDITION, d.EXEC_START_PRE, d.EXEC_START, d.EXEC_START_POST, d.EXEC_RELOAD,
        d.EXEC_STOP, d.EXEC_STOP_POST,
    )
}  # fmt: skip
_SIGNALS = {
    row.name: row
    for row in (
        d.KILL_SIGNAL, d.RESTART_KILL_SIGNAL, d.FINAL_KILL_SIGNAL, d.WATCHDOG_SIGNAL,
        d.RELOAD_SIGNAL,
    )
}  # fmt: skip
_WAITS_FOR_END = frozenset(
    [
        State.STOP_WATCHDOG,
        State.STOP_SIGTERM,
        State.STOP_SIGKILL,
        State.FINAL_SIGTERM,
        State.FINAL_SIGKILL,
    ]
)


def seconds(span: int) -> float | None:
    """Return a time span of a unit in seconds; None if it is without end."""
    return None if span == INFINITY else span / SECOND


def plan_of(spec: ServiceSpec) -> Plan:
    """Return what a definition means for the life of an instance."""
    get = spec.get
    return Plan(
        type=get(d.TYPE),
        commands={
            name: tuple(command.ignore_failure for command in get(row))
            for name, row in _COMMANDS.items()
        },
        start=seconds(get(d.TIMEOUT_START)),
        stop=seconds(get(d.TIMEOUT_STOP)),
        abort=seconds(get(d.TIMEOUT_ABORT)),
        runtime=seconds(get(d.RUNTIME_MAX)),
        watchdog=seconds(get(d.WATCHDOG)) or None,
        kills=get(d.SEND_SIGKILL),
        remains=get(d.REMAIN_AFTER_EXIT),
    )


class Recipe:
    """What all instances of one definition have in common, worked out once.

    Attributes:
        spec: The definition.
        plan: What it means for a life.
        access: Whose messages count.
        is_single: Whether it has only one command.
        preparer: Prepares its processes.
    """

    def __init__(self, house: House, spec: ServiceSpec) -> None:
        """Work it out."""
        self.spec = spec
        self.plan = plan_of(spec)
        self.is_single = sum(map(len, self.plan.commands.values())) == 1
        self.access = Access(spec.get(d.NOTIFY_ACCESS))
        self.preparer = Preparer(
            spec, house.base, whole=house.whole, search=house.search, session=house.sessions
        )


class Running:
    """One instance of a service.

    Attributes:
        spec: The definition that it was started with.
        life: Where it stands.
        generation: Of which generation it is.
        slot: Which one of several of its generation it is.
        pid: Its main process; 0 if there is none.
        runs: Whether that has become its program.
        is_well: Whether it has said that its restarts so far do not count (RESTART_RESET=1).
        status_text: What it last said with ``STATUS=``.
        exit: How its main process has ended.
        problem: What went wrong last, for people.
        since: When it was started, on the house's clock.
    """

    def __init__(
        self,
        house: House,
        recipe: Recipe,
        *,
        name: str,
        generation: int,
        slot: int = 0,
        given: Callable[[], Given],
        variables: Mapping[str, str],
        store: FdStore | None = None,
        brief: bool = False,
        changed: Callable[["Running"], None],
    ) -> None:
        """Prepare it.

        Args:
            house: Its surroundings.
            recipe: The definition.
            name: What to call it in the log.
            generation: Its number.
            slot: Which one of several it is.
            given: Asked for the descriptors of each main process.
            variables: What it is told in its environment, beside what every service is.
            store: Where to put what it stores.
            brief: Whether it is for one connection (Accept=yes).
            changed: Called whenever its state has changed.
        """
        self.spec = recipe.spec
        self.name = name
        self.life = Life(recipe.plan)
        self.generation = generation
        self.slot = slot
        self.pid = 0
        self.runs = False
        self.is_well = False
        self.status_text = ""
        self.exit: Exit | None = None
        self.problem = ""
        self.since = house.now()
        self.invocation = new_invocation()
        self.restarting = False
        self._house = house
        self._given = given
        self._variables = dict(variables)
        self._store = store
        self._changed = changed
        self._preparer = recipe.preparer
        self._main: Process | None = None
        self._control: Process | None = None
        self._session = 0
        self._acts: collections.deque[Act] = collections.deque()
        self._acting = False
        self._access = recipe.access
        self._ear: Ear | None = None
        self._timed = False
        self._announced: State | None = None
        self._signalled: State | None = None
        self._deserted = False
        self._brief = brief

    # --- what it is told --------------------------------------------------------------------------

    def start(self) -> None:
        """Start it."""
        self._do(self.life.start(self._house.now()))

    def stop(self, *, restarting: bool = False) -> None:
        """Stop it: as it wants to be, and by force in the end."""
        self.restarting = restarting
        self._do(self.life.stop(self._house.now()))

    def reload(self) -> None:
        """Have it read its configuration again."""
        self._do(self.life.reload(self._house.now()))

    def forward(self, number: int) -> None:
        """Pass a signal on to its main process."""
        if self.pid:
            self._send(self.pid, number)

    def _send(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            self._complain_of_refusal(pid)

    def _complain_of_refusal(self, pid: int) -> None:
        self._complain(f"process {pid} may not be signalled: it runs as another user")

    def kill(self) -> None:
        """End its processes by force; what is to be run at its end is not left out."""
        spares = self.spec.get(d.KILL_MODE) in (family.PROCESS, family.NONE)
        mode = family.PROCESS if spares else family.CONTROL_GROUP
        family.kill(mode, self._family(), signal.SIGKILL, final=True)

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end."""
        return self.life.state in IS_OVER

    @property
    def is_up(self) -> bool:
        """Whether it has started."""
        return self.life.state in IS_UP

    @property
    def is_active(self) -> bool:
        """Whether it is starting or has started, and is not on its way to its end."""
        return self.life.state in IS_UP or self.life.state in IS_STARTING

    # --- what it does -----------------------------------------------------------------------------

    def _do(self, acts: Sequence[Act]) -> None:
        self._acts += acts
        if self._acting:
            return
        self._acting = True
        try:
            while True:
                while self._acts:
                    self._carry_out(self._acts.popleft())
                if not self._is_gone():
                    break
                self._acts += self.life.gone(self._house.now())
        finally:
            self._acting = False
        self._set_timer()
        self._announce()

    def _set_timer(self) -> None:
        """Be called by the reactor only while there is something to wait for."""
        wanted = self.life.deadline() is not None and self.life.state not in IS_OVER
        if wanted and not self._timed:
            self._house.reactor.add(self)
        elif self._timed and not wanted:
            self._house.reactor.remove(self)
        self._timed = wanted
        waits = self.life.state in _WAITS_FOR_END
        (self._house.ending_ones.add if waits else self._house.ending_ones.discard)(self)

    def _announce(self) -> None:
        state = self.life.state
        if state is self._announced:
            return
        self._announced = state
        if state in IS_OVER:
            self._end()
        self._changed(self)

    def _carry_out(self, act: Act) -> None:
        match act:
            case Entered():  # the most frequent first
                log(logging.DEBUG, self.name, act.state, generation=self.generation)
            case Run(directive="ExecStart"):
                self._start_main(act.index)
            case Run():
                self._start_control(act.directive, act.index)
            case Kill():
                self._kill(act.signal)
            case KillCommand() if self._control is not None:
                self._complain("ExecReload: takes too long")
                self._send(self._control.pid, signal.SIGKILL)

    def _is_gone(self) -> bool:
        """Whether it waits for the end of its processes, and none is left."""
        if self.life.state not in _WAITS_FOR_END:
            return False
        if self._signalled is self.life.state and self.spec.get(d.KILL_MODE) == family.NONE:
            return True  # nobody was told to end, so nobody is waited for
        return self._is_alone()

    def _is_alone(self) -> bool:
        """Whether none of its processes is left, but for those that are left alone."""
        if self._main or self.pid or self._control:
            return False
        if self.spec.get(d.KILL_MODE) in (family.PROCESS, family.NONE):
            return True
        # What a dead process has left has come to us. Where no process is, none can begin; so
        # nobody has to look a second time.
        if not self._deserted:
            orphans = self._house.children.has_strangers()
            self._deserted = not orphans or not self._family().members()
        return self._deserted

    def _start_main(self, index: int) -> None:
        command = self.spec.get(d.EXEC_START)[index]
        given = Given()
        try:
            given = self._given()
            self._listen()
            main = self._spawn(command, given, self._main_executed, self._main_ended)
        except (SockactError, OSError) as error:
            self._complain(str(error))
            status = _status_of(error)
            self.exit = None if status is None else Exit(status)
            result = "resources" if status is None else "exit-code"
            self._acts += self.life.main_ended(result, self._house.now())
            return
        finally:
            given.close()
        self._main = main
        self.pid = main.pid
        self._session = main.pid if self._house.sessions else 0
        self._tell("started, pid %d", main.pid)
        self._acts += self.life.forked(self._house.now())
        if main.report is None:
            self._main_executed(None)

    def _start_control(self, directive: str, index: int) -> None:
        command = self.spec.get(_COMMANDS[directive])[index]
        given = Given()
        try:
            if self._preparer.shares_sockets:
                given = self._given()
            self._listen()
            self._control = self._spawn(
                command, given.only_sockets(), lambda _error: None, self._control_ended, directive
            )
        except (SockactError, OSError) as error:
            self._complain(f"{directive}: {error}")
            self._acts += self.life.command_ended("resources", self._house.now())
        finally:
            given.close()

    def _spawn(
        self,
        command: Command,
        given: Given,
        executed: Callable[[SockactError | None], None],
        ended: Callable[[Exit], None],
        directive: str = "ExecStart",
    ) -> Process:
        main = directive == "ExecStart"
        variables = {**self._variables, "INVOCATION_ID": self.invocation}
        # A process for one connection is started by the shortest way there is: nothing that only
        # the new process itself can do.
        pids = [] if self._brief else ["SYSTEMD_EXEC_PID"]
        if self._ear is not None and (main or self._access in (Access.EXEC, Access.ALL)):
            variables["NOTIFY_SOCKET"] = self._ear.address
        if main and self._store is not None and self._store.maximum:
            variables["FDSTORE"] = str(self._store.maximum)
        if main and (watchdog := self.life.plan.watchdog):
            variables["WATCHDOG_USEC"] = str(round(watchdog * SECOND))
            pids.append("WATCHDOG_PID")
        if not main and self.pid:
            variables["MAINPID"] = str(self.pid)
        if directive in ("ExecStop", "ExecStopPost"):
            variables["SERVICE_RESULT"] = self.life.result
            if self.exit is not None:
                variables["EXIT_CODE"] = self.exit.code
                variables["EXIT_STATUS"] = self.exit.status_text
        dies = self._house.death_signal and not self._brief
        death = self.spec.get(d.KILL_SIGNAL) if dies else 0
        starter, told = self._preparer.starter(
            command,
            variables,
            given,
            pid_variables=tuple(pids),
            main=main,
            death_signal=death,
        )
        order = self._preparer.order(given)
        self._deserted = False
        return self._house.children.start(starter, order, executed, ended, told)

    def _kill(self, directive: str) -> None:
        get = self.spec.get
        if self._is_gone():
            return
        if directive == "KillSignal" and self.restarting:
            directive = "RestartKillSignal"
        number = get(_SIGNALS[directive])
        if directive == "ReloadSignal":
            self.forward(number)
            return
        self._signalled = self.life.state
        mode = get(d.KILL_MODE)
        told = family.kill(
            mode,
            self._family(),
            number,
            final=directive == "FinalKillSignal",
            hang_up=get(d.SEND_SIGHUP),
        )
        for pid in told.refused:
            self._complain_of_refusal(pid)

    def _family(self) -> family.Family:
        own = {one.pid for one in (self._main, self._control) if one}
        return family.Family(
            self.invocation,
            self.pid,
            self._session,
            self._control.pid if self._control else 0,
            self._house.children.others(own),
        )

    # --- what happens to it -----------------------------------------------------------------------

    def _main_executed(self, error: SockactError | None) -> None:
        if error is not None:
            self._complain(str(error))
        else:
            self.runs = True
            self._do(self.life.executed(self._house.now()))
            self._changed(self)

    def _main_ended(self, how: Exit) -> None:
        self._hear(None)
        main, self._main = self._main, None
        if main and self.pid not in (0, main.pid):
            return  # it has handed over
        self.pid = 0
        self._judge_main(how)

    def _judge_main(self, how: Exit) -> None:
        self.exit = how
        oneshot = self.spec.get(d.TYPE) == "oneshot"
        success: frozenset[tuple[str, int]] = self.spec.get(d.SUCCESS_EXIT_STATUS)
        clean = how.is_clean(success, oneshot=oneshot)
        expected = self.life.state not in IS_UP and self.life.state not in IS_STARTING
        if clean or expected:
            self._tell("main process ended, %s", how)
        else:
            text = f"main process ended, {how}"
            log(logging.WARNING, self.name, text, generation=self.generation)
        if not clean and not self.problem:
            self.problem = f"main process ended, {how}"
        result, now = _result(how, clean=clean), self._house.now()
        self._do(self.life.main_ended(result, now, alone=self._is_alone()))

    def _control_ended(self, how: Exit) -> None:
        self._hear(None)
        self._control = None
        success: frozenset[tuple[str, int]] = self.spec.get(d.SUCCESS_EXIT_STATUS)
        clean = how.is_clean(success, oneshot=True)
        if not clean and self.life.state in COMMANDS:  # else it was told to end
            self._complain(f"{COMMANDS[self.life.state]}: {how}")
        result, now = _result(how, clean=clean), self._house.now()
        self._do(self.life.command_ended(result, now, status=how.status))

    def child_ended(self) -> None:
        """Look again whether anything of it is left: some child of this process has ended."""
        self._do(())

    def deadline(self) -> float | None:
        """Return when something is due; for the reactor."""
        return self.life.deadline()

    def expire(self, now: float) -> None:
        """Do what is due."""
        if self.life.state not in _WAITS_FOR_END:
            what = self.life.state.value
            acts = self.life.expire(now)
            if acts and self.life.result in ("timeout", "watchdog"):
                self._complain(f"{what}: {self.life.result}")
            elif acts:
                self._complain(f"{what}: not over in time")
        else:
            acts = self.life.expire(now)
            if acts:
                self._complain("does not end in time; killed")
        self._do(acts)

    def _tell(self, text: str, *arguments: object) -> None:
        level = logging.DEBUG if self._brief else logging.INFO
        log(level, self.name, text, *arguments, generation=self.generation)

    def _complain(self, text: str) -> None:
        self.problem = text
        log(logging.WARNING, self.name, text, generation=self.generation)

    # --- what it says -----------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._access is Access.NONE or self._ear is not None:
            return
        self._ear = Ear(complain=lambda text: log(logging.WARNING, self.name, text))
        self._house.reactor.watch(self._ear.fileno(), READ, self._hear)

    def _hear(self, limit: int | None = 64) -> None:
        if self._ear is not None:
            self._ear.hear(self._heard, limit)

    def _heard(self, heard: Heard) -> None:
        control = self._control.pid if self._control else 0
        if not accepts(self._access, heard.pid, self.pid, control, self._belongs):
            text = f"a message of process {heard.pid} does not count (NotifyAccess={self._access})"
            log(logging.WARNING, self.name, text)
            return
        message, now = heard.message, self._house.now()
        for complaint in message.complaints():
            log(logging.WARNING, self.name, complaint)
        if message.notify_access is not None:
            self._access = message.notify_access
        if message.status is not None:
            self.status_text = message.status
            self._changed(self)
        pid = self._named(heard)
        if pid is not None and pid != self.pid:
            self._follow(pid, heard.uid)
        if message.fdstoreremove or message.fdstore:
            self._keep(heard)
        if message.restart_reset:
            self.is_well = True
            self._changed(self)
        self._times(message, now)
        if message.stopping:
            self._do(self.life.said_stopping(now))
            return
        if message.reloading:
            began = message.monotonic_usec
            began_at = None if began is None else began / SECOND
            self._do(self.life.said_reloading(now, began=began_at))
        if message.ready:
            self._do(self.life.said_ready(now))
            self._changed(self)

    def _times(self, message: Message, now: float) -> None:
        if message.watchdog_ping:
            self.life.said_alive(now)
        if message.watchdog_usec is not None:
            span = message.watchdog_usec
            self.life.set_watchdog(0.0 if span == INFINITY else span / SECOND, now)
        if message.extend_timeout_usec is not None:
            span = message.extend_timeout_usec
            self.life.extend(math.inf if span == INFINITY else span / SECOND, now)
        self._set_timer()  # there may have been nothing to wait for before
        if message.watchdog_trigger:
            self._complain("asks for the watchdog")
            self._do(self.life.said_broken(now))

    def _belongs(self, pid: int) -> bool:
        return self._family().has(pid)

    def _keep(self, heard: Heard) -> None:
        """Store what came, or forget what is stored."""
        message = heard.message
        if self._store is None:
            return
        if message.fdstoreremove:
            self._store.remove(message.fdname or "")
            return
        refused = self._store.add(message.fdname, heard.take(), poll=message.fdpoll)
        for refusal in dict.fromkeys(refused):  # one line, where 253 descriptors may come at once
            log(logging.WARNING, self.name, f"not stored: {refusal}")

    def _named(self, heard: Heard) -> int | None:
        """Return the process that is to be the main one (MAINPIDFD=, MAINPID=, MAINPIDFDID=)."""
        message, pid = heard.message, heard.message.mainpid
        if message.mainpidfd:
            if heard.count != 1:
                text = f"MAINPIDFD=1 comes with {heard.count} descriptors instead of one"
                log(logging.WARNING, self.name, text)
                return None
            (pidfd,) = heard.take()
            pid = pid_of(pidfd.fileno())
            pidfd.close()
            if pid is None:
                log(logging.WARNING, self.name, "MAINPIDFD=1 comes without a pidfd of a process")
        elif pid is not None and message.mainpidfdid is not None:
            known = own_pidfd_id(pid)  # None where it cannot be told
            if known not in (None, message.mainpidfdid):
                text = f"MAINPIDFDID={message.mainpidfdid} is not that of process {pid}"
                log(logging.WARNING, self.name, text)
                return None
        return pid

    def _follow(self, pid: int, uid: int) -> None:
        """Take another process for the main one.

        Of an orphan that does not belong to it the word of root or of our own user is enough: it
        may have left everything that would tell.
        """
        children = self._house.children
        is_own = self._main is not None and pid == self._main.pid
        is_orphan = uid in (0, os.geteuid()) and is_child(pid)
        belongs = is_own or is_orphan or pid in self._family().members()
        if not is_own and not (belongs and children.adopt(pid, self._followed_ended)):
            text = f"process {pid}, which is to be the main one, is none of this service"
            log(logging.WARNING, self.name, text)
            return
        children.forget(self.pid)
        self.pid = pid

    def _followed_ended(self, pid: int, how: Exit | None) -> None:
        self._hear(None)
        if pid != self.pid:
            return
        self.pid = 0
        if how is not None:
            self._judge_main(how)
            return
        self.exit = None
        self._tell("main process ended; how, only its parent knows")
        self._do(self.life.main_ended(SUCCESS, self._house.now(), alone=self._is_alone()))

    # --- its end ----------------------------------------------------------------------------------

    def _end(self) -> None:
        self._hear(None)
        self._house.children.forget(self.pid)
        if self._ear is not None:
            self._house.reactor.unwatch(self._ear.fileno())
            self._ear.close()
            self._ear = None
        self._house.ending_ones.discard(self)
        if self._timed:
            self._house.reactor.remove(self)
            self._timed = False

    def close(self) -> None:
        """Let go of everything; its processes are left alone."""
        self._end()


def _status_of(error: Exception) -> int | None:
    """Return the status with which a process would have ended that failed at this."""
    match error:
        case LaunchError():
            return error.status or None
        case CredentialsError():
            return int(Step.USER.value)
    return None


def _result(how: Exit, *, clean: bool) -> str:
    if clean:
        return SUCCESS
    if how.core:
        return "core-dump"
    return "signal" if how.signal else "exit-code"
