"""The life of a socket unit and of one instance of a service: states, events, moves, as data. Pure.

The states have systemd's names, as ``systemctl show -p SubState`` prints them. A state that has
nothing to do, because the unit has no command for it, is not come into: what follows when its
commands are done takes its place.

Source: src/core/service.c and src/core/socket.c in systemd.
"""

import enum


class _Sign(enum.Enum):
    """One of a few things, each itself only: they are looked up all the time.

    Python's own hash of a member is that of its name, worked out anew for each look.
    """

    __hash__ = object.__hash__

    def __str__(self) -> str:
        return str(self.value)


class Instance(_Sign):
    """Where one instance of a service stands."""

    DEAD = "dead"
    CONDITION = "condition"
    START_PRE = "start-pre"
    START = "start"
    START_POST = "start-post"
    RUNNING = "running"
    EXITED = "exited"
    RELOAD = "reload"
    RELOAD_SIGNAL = "reload-signal"
    RELOAD_NOTIFY = "reload-notify"
    STOP = "stop"
    STOP_WATCHDOG = "stop-watchdog"
    STOP_SIGTERM = "stop-sigterm"
    STOP_SIGKILL = "stop-sigkill"
    STOP_POST = "stop-post"
    FINAL_SIGTERM = "final-sigterm"
    FINAL_SIGKILL = "final-sigkill"
    FAILED = "failed"


class Happens(_Sign):
    """What can happen to an instance."""

    START = "it is told to start"
    STOP = "it is told to stop"
    RELOAD = "it is told to reload"
    DONE = "the last command of this state has succeeded"
    BROKEN = "a command of this state has failed"
    UNABLE = "the first command of this state could not be run"
    EXECUTED = "the main process runs its program"
    EXITED = "the main process has ended"
    READY = "it says READY=1"
    RELOADING = "it says RELOADING=1, or has said so while a command ran"
    SIGNALLED = "its main process is to reload by a signal"
    STOPPING = "it says STOPPING=1"
    GONE = "no process of it is left"
    LATE = "it has taken too long"
    SPARED = "it has taken too long, and may not be killed (SendSIGKILL=no)"
    SILENT = "the watchdog was not told"


_I, _H = Instance, Happens

_STARTING = {
    _H.STOP: _I.STOP_SIGTERM,
    _H.BROKEN: _I.STOP_SIGTERM,
    _H.LATE: _I.STOP_SIGTERM,
    _H.SILENT: _I.STOP_WATCHDOG,
}
_RELOADING = {
    _H.STOP: _I.STOP_SIGTERM,
    _H.EXITED: _I.STOP,
    _H.STOPPING: _I.STOP_SIGTERM,
    _H.SILENT: _I.STOP_WATCHDOG,
    _H.LATE: _I.RUNNING,
}

INSTANCE: dict[Instance, dict[Happens, Instance]] = {
    _I.DEAD: {_H.START: _I.CONDITION},
    _I.CONDITION: {**_STARTING, _H.DONE: _I.START_PRE, _H.UNABLE: _I.DEAD},
    _I.START_PRE: {**_STARTING, _H.DONE: _I.START, _H.UNABLE: _I.DEAD},
    # Which of these makes a start complete depends on Type=; the machine knows.
    _I.START: {
        **_STARTING,
        _H.DONE: _I.START_POST,
        _H.EXECUTED: _I.START_POST,
        _H.READY: _I.START_POST,
        _H.EXITED: _I.RUNNING,
    },
    # If the main process ends, the commands are finished first.
    _I.START_POST: {**_STARTING, _H.DONE: _I.RUNNING, _H.UNABLE: _I.STOP},
    _I.RUNNING: {
        _H.STOP: _I.STOP,
        _H.RELOAD: _I.RELOAD,
        _H.EXITED: _I.RUNNING,
        _H.RELOADING: _I.RELOAD_NOTIFY,
        _H.STOPPING: _I.STOP_SIGTERM,
        _H.LATE: _I.STOP,
        _H.SILENT: _I.STOP_WATCHDOG,
    },
    _I.EXITED: {_H.STOP: _I.STOP, _H.RELOAD: _I.RELOAD, _H.SILENT: _I.STOP_WATCHDOG},
    # As in START_POST; what the service says meanwhile counts when the commands are done.
    _I.RELOAD: {
        _H.STOP: _I.STOP_SIGTERM,
        _H.DONE: _I.RUNNING,
        _H.BROKEN: _I.RUNNING,
        _H.UNABLE: _I.RUNNING,
        _H.LATE: _I.RUNNING,
        _H.SIGNALLED: _I.RELOAD_SIGNAL,
        _H.RELOADING: _I.RELOAD_NOTIFY,
        _H.SILENT: _I.STOP_WATCHDOG,
    },
    _I.RELOAD_SIGNAL: {**_RELOADING, _H.RELOADING: _I.RELOAD_NOTIFY},
    _I.RELOAD_NOTIFY: {**_RELOADING, _H.READY: _I.RUNNING},
    _I.STOP: {
        _H.DONE: _I.STOP_SIGTERM,
        _H.BROKEN: _I.STOP_SIGTERM,
        _H.UNABLE: _I.STOP_SIGTERM,
        _H.LATE: _I.STOP_SIGTERM,
    },
    _I.STOP_WATCHDOG: {
        _H.STOP: _I.STOP_SIGTERM,
        _H.GONE: _I.STOP_POST,
        _H.LATE: _I.STOP_SIGKILL,
        _H.SPARED: _I.STOP_POST,
    },
    _I.STOP_SIGTERM: {
        _H.GONE: _I.STOP_POST,
        _H.LATE: _I.STOP_SIGKILL,
        _H.SPARED: _I.STOP_POST,
    },
    _I.STOP_SIGKILL: {_H.GONE: _I.STOP_POST, _H.LATE: _I.STOP_POST},
    _I.STOP_POST: {
        _H.DONE: _I.FINAL_SIGTERM,
        _H.BROKEN: _I.FINAL_SIGTERM,
        _H.UNABLE: _I.FINAL_SIGTERM,
        _H.LATE: _I.FINAL_SIGTERM,
    },
    _I.FINAL_SIGTERM: {_H.GONE: _I.DEAD, _H.LATE: _I.FINAL_SIGKILL, _H.SPARED: _I.DEAD},
    _I.FINAL_SIGKILL: {_H.GONE: _I.DEAD, _H.LATE: _I.DEAD},
    _I.FAILED: {_H.START: _I.CONDITION},
}
"""What follows what; anything that does not stand here changes nothing.

`Instance.RUNNING` as what follows is short for all that an instance can be once it has started:
without its main process it is `Instance.EXITED`, or stops (`Instance.STOP`, or
`Instance.STOP_SIGTERM` if something has failed); with it, it may have said before that it reloads
or stops. `Instance.DEAD` is `Instance.FAILED` if something has failed.
"""

COMMANDS: dict[Instance, str] = {
    _I.CONDITION: "ExecCondition",
    _I.START_PRE: "ExecStartPre",
    _I.START: "ExecStart",
    _I.START_POST: "ExecStartPost",
    _I.RELOAD: "ExecReload",
    _I.STOP: "ExecStop",
    _I.STOP_POST: "ExecStopPost",
}
"""The directive whose commands are run in a state, one after the other."""

IS_UP = frozenset([_I.RUNNING, _I.EXITED, _I.RELOAD, _I.RELOAD_SIGNAL, _I.RELOAD_NOTIFY])
IS_STARTING = frozenset([_I.CONDITION, _I.START_PRE, _I.START, _I.START_POST])
IS_OVER = frozenset([_I.DEAD, _I.FAILED])
IS_FINAL = frozenset([_I.FINAL_SIGTERM, _I.FINAL_SIGKILL, *IS_OVER])
"""From here on a socket unit takes its service for stopped."""


class Unit(_Sign):
    """Where a socket unit stands."""

    DEAD = "dead"
    START_PRE = "start-pre"
    START_OPEN = "start-open"
    START_POST = "start-post"
    LISTENING = "listening"
    DEFERRED = "deferred"
    RUNNING = "running"
    LIMITED = "limited"
    STOP_PRE = "stop-pre"
    STOP_PRE_SIGTERM = "stop-pre-sigterm"
    STOP_PRE_SIGKILL = "stop-pre-sigkill"
    STOP_POST = "stop-post"
    FINAL_SIGTERM = "final-sigterm"
    FINAL_SIGKILL = "final-sigkill"
    FAILED = "failed"


class Occurs(_Sign):
    """What can happen to a socket unit."""

    START = "it is told to start"
    STOP = "it is told to stop"
    DONE = "the last command of this state has succeeded, or its sockets are open"
    UNDONE = "a command has failed"
    ENDED = "the command that was told to end has ended"
    LATE = "it has taken too long"
    BROKEN = "a socket could not be opened, or cannot be used any more"
    TRIGGERED = "its service was started for it"
    DEFERRED = "its service has to wait for one that it conflicts with"
    REFUSED = "its service cannot be started"
    ACTIVE = "its service runs"
    INACTIVE = "its service has stopped"
    LIMIT = "it was triggered too often"
    TIRED = "it was triggered too often, and recovers (X-TriggerLimitRecoverSec=)"


_U, _O = Unit, Occurs

_OPEN = {
    _O.TIRED: _U.LIMITED,
    _O.REFUSED: _U.STOP_PRE,
    _O.BROKEN: _U.STOP_PRE,
    _O.STOP: _U.STOP_PRE,
}

UNIT: dict[Unit, dict[Occurs, Unit]] = {
    _U.DEAD: {_O.START: _U.START_PRE},
    _U.START_PRE: {
        _O.DONE: _U.START_OPEN,
        _O.UNDONE: _U.DEAD,
        _O.LATE: _U.FINAL_SIGTERM,
        _O.STOP: _U.STOP_PRE_SIGTERM,
    },
    _U.START_OPEN: {_O.DONE: _U.START_POST, _O.BROKEN: _U.STOP_PRE, _O.STOP: _U.STOP_POST},
    # As long as a command runs, no other is begun: it is ended first.
    _U.START_POST: {
        _O.DONE: _U.LISTENING,
        _O.UNDONE: _U.STOP_PRE,
        _O.LATE: _U.STOP_PRE_SIGTERM,
        _O.BROKEN: _U.STOP_PRE_SIGTERM,
        _O.STOP: _U.STOP_PRE_SIGTERM,
    },
    _U.LISTENING: {
        **_OPEN,
        _O.TRIGGERED: _U.RUNNING,
        _O.ACTIVE: _U.RUNNING,
        _O.DEFERRED: _U.DEFERRED,
        _O.LIMIT: _U.STOP_PRE,
    },
    _U.DEFERRED: {
        **_OPEN,
        _O.TRIGGERED: _U.RUNNING,
        _O.ACTIVE: _U.RUNNING,
        _O.LATE: _U.STOP_PRE,
    },
    _U.RUNNING: {**_OPEN, _O.INACTIVE: _U.LISTENING},
    _U.LIMITED: {_O.LATE: _U.LISTENING, _O.BROKEN: _U.STOP_PRE, _O.STOP: _U.STOP_PRE},
    _U.STOP_PRE: {
        _O.DONE: _U.STOP_POST,
        _O.UNDONE: _U.STOP_POST,
        _O.LATE: _U.STOP_PRE_SIGTERM,
    },
    _U.STOP_PRE_SIGTERM: {_O.ENDED: _U.STOP_POST, _O.LATE: _U.STOP_PRE_SIGKILL},
    _U.STOP_PRE_SIGKILL: {_O.ENDED: _U.STOP_POST, _O.LATE: _U.DEAD},
    _U.STOP_POST: {_O.DONE: _U.DEAD, _O.UNDONE: _U.DEAD, _O.LATE: _U.FINAL_SIGTERM},
    _U.FINAL_SIGTERM: {_O.ENDED: _U.DEAD, _O.LATE: _U.FINAL_SIGKILL},
    _U.FINAL_SIGKILL: {_O.ENDED: _U.DEAD, _O.LATE: _U.DEAD},
    _U.FAILED: {_O.START: _U.START_PRE},
}
"""What follows what; anything that does not stand here changes nothing.

`Unit.DEAD` as what follows is `Unit.FAILED` if the unit has a result other than success.
`Unit.LIMITED` is ours: the sockets stay open, and nobody is started for them for a while.
"""

UNIT_COMMANDS: dict[Unit, str] = {
    _U.START_PRE: "ExecStartPre",
    _U.START_POST: "ExecStartPost",
    _U.STOP_PRE: "ExecStopPre",
    _U.STOP_POST: "ExecStopPost",
}

IS_OPEN = frozenset(
    [
        _U.START_POST,
        _U.LISTENING,
        _U.DEFERRED,
        _U.RUNNING,
        _U.LIMITED,
        _U.STOP_PRE,
        _U.STOP_PRE_SIGTERM,
        _U.STOP_PRE_SIGKILL,
    ]
)
"""The sockets are open, as far as they have been opened."""
