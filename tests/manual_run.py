"""What sockact-run(1) says of the life of a socket unit, from the table that it lives by.

``python -m tests.manual`` writes it into the page; a test finds out whether it stands there.
"""

from sockact.supervise.tables import UNIT, Occurs, Unit
from tests.manual_rendezvous import _column_table, _roff

_MEANINGS = {
    Unit.DEAD: "It was not started, or was stopped.",
    Unit.START_PRE: "Runs ExecStartPre=.",
    Unit.START_OPEN: "Opens its sockets.",
    Unit.START_POST: "Runs ExecStartPost=; its sockets are open.",
    Unit.LISTENING: "Waits for traffic. With Accept=yes it stays here, and takes connections.",
    Unit.DEFERRED: "There is traffic, but its service conflicts with one that runs.",
    Unit.RUNNING: "Its service runs, and takes what comes.",
    Unit.LIMITED: "Its service was started too often; it rests, with its sockets open.",
    Unit.STOP_PRE: "Runs ExecStopPre=; its sockets are open.",
    Unit.STOP_PRE_SIGTERM: "Ends the command that runs, by SIGTERM.",
    Unit.STOP_PRE_SIGKILL: "Ends it by SIGKILL.",
    Unit.STOP_POST: "Its sockets are closed. Runs ExecStopPost=.",
    Unit.FINAL_SIGTERM: "Ends the command that runs, by SIGTERM; its sockets are closed.",
    Unit.FINAL_SIGKILL: "Ends it by SIGKILL.",
    Unit.FAILED: "It has ended because something has failed.",
}
_EVENTS = {
    Occurs.START: "told to start",
    Occurs.STOP: "told to stop",
    Occurs.DONE: "its commands have succeeded",
    Occurs.UNDONE: "a command has failed",
    Occurs.ENDED: "the command has ended",
    Occurs.LATE: "TimeoutSec= is over",
    Occurs.BROKEN: "a socket cannot be opened or used",
    Occurs.TRIGGERED: "its service is started for it",
    Occurs.DEFERRED: "its service has to wait",
    Occurs.REFUSED: "its service cannot be started",
    Occurs.ACTIVE: "its service runs",
    Occurs.INACTIVE: "its service has stopped",
    Occurs.LIMIT: "triggered too often",
    Occurs.TIRED: "the same, and it is to recover",
}
_SPECIAL = {
    (Unit.START_OPEN, Occurs.DONE): "its sockets are open",
    (Unit.LIMITED, Occurs.LATE): "X-TriggerLimitRecoverSec= is over",
    (Unit.DEFERRED, Occurs.LATE): "DeferTriggerMaxSec= is over",
}


def render_units() -> str:
    """Return the states and moves of a socket unit as mdoc."""
    meanings = [".Bl -tag -width stop-pre-sigtermX -compact"]
    rows = []
    for state in Unit:
        meanings += [f".It Em {state.value}", _roff(_MEANINGS[state])]
        for i, (event, after) in enumerate(UNIT[state].items()):
            name = "dead or failed" if after is Unit.DEAD else after.value
            text = _SPECIAL.get((state, event), _EVENTS[event])
            rows.append((state.value if i == 0 else "", text, name))
    longest = max((text for _, text, _ in rows), key=len)
    table = _column_table(
        ("stop-pre-sigterm", longest, "stop-pre-sigterm"), ("State", "Event", "Next"), rows
    )
    return "\n".join([*meanings, ".El\n"]) + ".Pp\n" + table


BLOCKS = {"units": render_units}
"""What is written into the page, by the name that stands in its markers."""
