"""Whether a service that has ended is started again, and when. Pure.

Source: ``service_shall_restart()`` and ``service_restart_usec_next()`` in systemd's
src/core/service.c, and the table of Restart= in systemd.service(5).
"""

import math
from collections.abc import Callable

from sockact import service_directives as d
from sockact.spec import INFINITY, ServiceSpec
from sockact.supervise.instance import SKIPPED, SUCCESS, WATCHDOG

SECOND = 1_000_000

_RULES: dict[str, Callable[[str], bool]] = {
    "no": lambda _result: False,
    "always": lambda result: result != SKIPPED,
    "on-success": lambda result: result == SUCCESS,
    "on-failure": lambda result: result not in (SUCCESS, SKIPPED),
    "on-abnormal": lambda result: result not in (SUCCESS, SKIPPED, "exit-code"),
    "on-abort": lambda result: result in ("signal", "core-dump"),
    "on-watchdog": lambda result: result == WATCHDOG,
}


def shall_restart(spec: ServiceSpec, result: str, status: tuple[str, int] | None) -> bool:
    """Return whether a service that has ended by itself is started again.

    Args:
        spec: Its definition.
        result: How it has ended.
        status: How its main process has ended: ("exit", status) or ("signal", number).
    """
    if status in spec.get(d.RESTART_PREVENT_EXIT_STATUS):
        return False
    if status in spec.get(d.RESTART_FORCE_EXIT_STATUS):
        return spec.get(d.TYPE) != "oneshot" or result != SUCCESS
    return _RULES[spec.get(d.RESTART)](result)


def delay(spec: ServiceSpec, restarts: int) -> float:
    """Return the seconds to wait before a restart.

    Args:
        spec: The definition.
        restarts: How often it has been restarted before, since it was started otherwise.
    """
    first = spec.get(d.RESTART_SEC)
    steps, last = spec.get(d.RESTART_STEPS), spec.get(d.RESTART_MAX_DELAY)
    if first == INFINITY:
        return math.inf
    if not restarts or not steps or not first or last == INFINITY or last <= first:
        return first / SECOND
    if restarts >= steps:
        return last / SECOND
    return float(first * (last / first) ** (restarts / steps) / SECOND)
