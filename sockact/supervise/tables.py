"""The life of a socket unit and of one instance of a service: states, events, moves, as data. Pure.

The states have systemd's names, as ``systemctl show -p SubState`` prints them. A state that has
nothing to do, because the unit has no command for it, is left at once; where to stands in `SKIPS`.

Source: src/core/service.c and src/core/socket.c in systemd.
"""

import enum


class Instance(enum.Enum):
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


class Happens(enum.Enum):
    """What can happen to an instance."""

    START = "it is told to start"
    STOP = "it is told to stop"
    RELOAD = "it is told to reload"
    DONE = "the last command of this state has succeeded"
    BROKEN = "a command of this state has failed"
    EXECUTED = "the main process runs its program"
    EXITED = "the main process has ended"
    READY = "it says READY=1"
    RELOADING = "it says RELOADING=1"
    STOPPING = "it says STOPPING=1"
    GONE = "no process of it is left"
    LATE = "it has taken too long"
    SILENT = "the watchdog was not told"


_I, _H = Instance, Happens

_STARTING = {_H.STOP: _I.STOP_SIGTERM, _H.BROKEN: _I.STOP_SIGTERM, _H.LATE: _I.STOP_SIGTERM}
_ALIVE = {
    _H.STOP: _I.STOP,
    _H.EXITED: _I.STOP,
    _H.STOPPING: _I.STOP_SIGTERM,
    _H.SILENT: _I.STOP_WATCHDOG,
}

INSTANCE: dict[Instance, dict[Happens, Instance]] = {
    _I.DEAD: {_H.START: _I.CONDITION},
    _I.CONDITION: {**_STARTING, _H.DONE: _I.START_PRE},
    _I.START_PRE: {**_STARTING, _H.DONE: _I.START},
    # What makes a start complete depends on Type=; the machine knows.
    _I.START: {
        **_STARTING,
        _H.DONE: _I.START_POST,
        _H.EXECUTED: _I.START_POST,
        _H.READY: _I.START_POST,
        _H.EXITED: _I.STOP_SIGTERM,
        _H.STOPPING: _I.STOP_SIGTERM,
        _H.SILENT: _I.STOP_WATCHDOG,
    },
    _I.START_POST: {
        **_STARTING,
        _H.DONE: _I.RUNNING,
        _H.STOP: _I.STOP,
        _H.EXITED: _I.START_POST,  # its commands are finished first
        _H.STOPPING: _I.STOP_SIGTERM,
        _H.SILENT: _I.STOP_WATCHDOG,
    },
    _I.RUNNING: {
        **_ALIVE,
        _H.RELOAD: _I.RELOAD,
        _H.RELOADING: _I.RELOAD_NOTIFY,
        _H.LATE: _I.STOP_SIGTERM,  # RuntimeMaxSec=
    },
    _I.EXITED: {_H.STOP: _I.STOP, _H.RELOAD: _I.RELOAD},
    _I.RELOAD: {
        **_ALIVE,
        _H.DONE: _I.RUNNING,
        _H.BROKEN: _I.RUNNING,
        _H.LATE: _I.RUNNING,
        _H.RELOADING: _I.RELOAD_NOTIFY,
    },
    _I.RELOAD_SIGNAL: {**_ALIVE, _H.RELOADING: _I.RELOAD_NOTIFY, _H.LATE: _I.RUNNING},
    _I.RELOAD_NOTIFY: {**_ALIVE, _H.READY: _I.RUNNING, _H.LATE: _I.RUNNING},
    _I.STOP: {
        _H.DONE: _I.STOP_SIGTERM,
        _H.BROKEN: _I.STOP_SIGTERM,
        _H.LATE: _I.STOP_SIGTERM,
        _H.EXITED: _I.STOP,
    },
    _I.STOP_WATCHDOG: {
        _H.GONE: _I.STOP_POST,
        _H.LATE: _I.STOP_SIGKILL,
        _H.EXITED: _I.STOP_WATCHDOG,
    },
    _I.STOP_SIGTERM: {_H.GONE: _I.STOP_POST, _H.LATE: _I.STOP_SIGKILL, _H.EXITED: _I.STOP_SIGTERM},
    _I.STOP_SIGKILL: {_H.GONE: _I.STOP_POST, _H.LATE: _I.STOP_POST, _H.EXITED: _I.STOP_SIGKILL},
    _I.STOP_POST: {
        _H.DONE: _I.FINAL_SIGTERM,
        _H.BROKEN: _I.FINAL_SIGTERM,
        _H.LATE: _I.FINAL_SIGTERM,
        _H.EXITED: _I.STOP_POST,
    },
    _I.FINAL_SIGTERM: {_H.GONE: _I.DEAD, _H.LATE: _I.FINAL_SIGKILL, _H.EXITED: _I.FINAL_SIGTERM},
    _I.FINAL_SIGKILL: {_H.GONE: _I.DEAD, _H.LATE: _I.DEAD, _H.EXITED: _I.FINAL_SIGKILL},
    _I.FAILED: {_H.START: _I.CONDITION},
}
"""What follows what; anything that does not stand here changes nothing."""

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


class Unit(enum.Enum):
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
    STOP_POST = "stop-post"
    FAILED = "failed"


class Occurs(enum.Enum):
    """What can happen to a socket unit."""

    START = "it is told to start"
    STOP = "it is told to stop"
    DONE = "the last command of this state has succeeded, or its sockets are open"
    BROKEN = "a command has failed, or taken too long, or a socket could not be opened"
    TRIGGERED = "its service was started for it"
    DEFERRED = "its service has to wait for one that it conflicts with"
    REFUSED = "its service cannot be started"
    ACTIVE = "its service runs"
    INACTIVE = "its service has stopped"
    LIMIT = "it was triggered too often"
    RECOVERED = "X-TriggerLimitRecoverSec= is over"


_U, _O = Unit, Occurs

UNIT: dict[Unit, dict[Occurs, Unit]] = {
    _U.DEAD: {_O.START: _U.START_PRE},
    _U.START_PRE: {_O.DONE: _U.START_OPEN, _O.BROKEN: _U.FAILED, _O.STOP: _U.DEAD},
    _U.START_OPEN: {_O.DONE: _U.START_POST, _O.BROKEN: _U.STOP_POST},
    _U.START_POST: {_O.DONE: _U.LISTENING, _O.BROKEN: _U.STOP_PRE, _O.STOP: _U.STOP_PRE},
    _U.LISTENING: {
        _O.TRIGGERED: _U.RUNNING,
        _O.ACTIVE: _U.RUNNING,
        _O.DEFERRED: _U.DEFERRED,
        _O.REFUSED: _U.STOP_PRE,
        _O.LIMIT: _U.STOP_PRE,
        _O.BROKEN: _U.STOP_PRE,
        _O.STOP: _U.STOP_PRE,
    },
    _U.DEFERRED: {
        _O.TRIGGERED: _U.RUNNING,
        _O.ACTIVE: _U.RUNNING,
        _O.REFUSED: _U.STOP_PRE,
        _O.BROKEN: _U.STOP_PRE,
        _O.STOP: _U.STOP_PRE,
    },
    _U.RUNNING: {
        _O.INACTIVE: _U.LISTENING,
        _O.REFUSED: _U.STOP_PRE,
        _O.BROKEN: _U.STOP_PRE,
        _O.STOP: _U.STOP_PRE,
    },
    _U.LIMITED: {_O.RECOVERED: _U.LISTENING, _O.STOP: _U.STOP_PRE},
    _U.STOP_PRE: {_O.DONE: _U.STOP_POST, _O.BROKEN: _U.STOP_POST},
    _U.STOP_POST: {_O.DONE: _U.DEAD, _O.BROKEN: _U.FAILED},
    _U.FAILED: {_O.START: _U.START_PRE},
}
"""What follows what; anything that does not stand here changes nothing.

A unit that has a result other than success ends as failed, and with X-TriggerLimitRecoverSec= a
limit leads to `Unit.LIMITED`, which is ours: its sockets stay open, and nobody is started.
"""

UNIT_COMMANDS: dict[Unit, str] = {
    _U.START_PRE: "ExecStartPre",
    _U.START_POST: "ExecStartPost",
    _U.STOP_PRE: "ExecStopPre",
    _U.STOP_POST: "ExecStopPost",
}

IS_OPEN = frozenset([_U.START_POST, _U.LISTENING, _U.DEFERRED, _U.RUNNING, _U.LIMITED, _U.STOP_PRE])
"""The sockets are open."""
