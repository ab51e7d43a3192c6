"""sockact.supervise.restarts: the table of Restart= in systemd.service(5), and delays."""

import itertools
import math
from typing import Any

import pytest

from sockact import service_directives as d
from sockact.spec import INFINITY, Directive, Origin, ServiceSpec, Setting
from sockact.supervise.restarts import delay, shall_restart

SECOND = 1_000_000

# systemd.service(5), "Exit causes and the effect of the Restart= settings".
CAUSES = {
    "clean": ("success", ("exit", 0)),
    "unclean exit code": ("exit-code", ("exit", 1)),
    "unclean signal": ("signal", ("signal", 9)),
    "core dump": ("core-dump", ("signal", 6)),
    "timeout": ("timeout", ("signal", 15)),
    "watchdog": ("watchdog", ("signal", 6)),
}
TABLE = {
    "no": [],
    "always": list(CAUSES),
    "on-success": ["clean"],
    "on-failure": [cause for cause in CAUSES if cause != "clean"],
    "on-abnormal": ["unclean signal", "core dump", "timeout", "watchdog"],
    "on-abort": ["unclean signal", "core dump"],
    "on-watchdog": ["watchdog"],
}


_ROWS: dict[str, Directive[Any]] = {
    "restart": d.RESTART,
    "kind": d.TYPE,
    "prevent": d.RESTART_PREVENT_EXIT_STATUS,
    "force": d.RESTART_FORCE_EXIT_STATUS,
    "sec": d.RESTART_SEC,
    "steps": d.RESTART_STEPS,
    "maximum": d.RESTART_MAX_DELAY,
}


def _spec(**settings: object) -> ServiceSpec:
    origin = Origin("x.service", 1)
    found = {_ROWS[key].name: Setting(value, origin) for key, value in settings.items()}
    return ServiceSpec("x.service", found)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("rule", TABLE)
def test_table(rule: str, cause: str) -> None:
    """Each value of Restart= asks for a restart after what the manual says."""
    result, status = CAUSES[cause]
    assert shall_restart(_spec(restart=rule), result, status) is (cause in TABLE[rule])


@pytest.mark.parametrize("result", ["resources", "protocol"])
@pytest.mark.parametrize("rule", TABLE)
def test_what_is_not_in_the_table(rule: str, result: str) -> None:
    """A start that came to nothing is a failure that is not of the program's making."""
    expected = rule in ("always", "on-failure", "on-abnormal")
    assert shall_restart(_spec(restart=rule), result, None) is expected


@pytest.mark.parametrize("rule", TABLE)
def test_condition(rule: str) -> None:
    """What was not started because of its ExecCondition= is not started again."""
    assert not shall_restart(_spec(restart=rule), "exec-condition", None)


def test_default() -> None:
    """Without Restart= nothing is started again."""
    assert not any(shall_restart(_spec(), *cause) for cause in CAUSES.values())


@pytest.mark.parametrize("rule", TABLE)
@pytest.mark.parametrize("status", [("exit", 3), ("signal", 10)])
def test_prevented_and_forced(rule: str, status: tuple[str, int]) -> None:
    """A status that prevents a restart beats one that forces it, which beats Restart=."""
    result = "exit-code" if status[0] == "exit" else "signal"
    also = {status, ("exit", 77)}
    assert not shall_restart(_spec(restart=rule, prevent=also), result, status)
    assert shall_restart(_spec(restart=rule, force=also), result, status)
    assert not shall_restart(_spec(restart=rule, prevent=also, force=also), result, status)
    other = (status[0], status[1] + 1)
    plain = shall_restart(_spec(restart=rule), result, other)
    assert shall_restart(_spec(restart=rule, prevent=also, force=also), result, other) is plain


def test_status_and_signal_are_different() -> None:
    """Exit status 9 is not SIGKILL."""
    spec = _spec(restart="always", prevent={("exit", 9)})
    assert not shall_restart(spec, "exit-code", ("exit", 9))
    assert shall_restart(spec, "signal", ("signal", 9))


def test_status_counts_whatever_the_result() -> None:
    """The status of the main process counts even where the service has failed by something else."""
    spec = _spec(restart="always", prevent={("exit", 3)})
    assert not shall_restart(spec, "timeout", ("exit", 3))
    assert not shall_restart(_spec(restart="always", prevent={("exit", 0)}), "success", ("exit", 0))


def test_without_a_main_process() -> None:
    """Where there was none, no status prevents or forces anything."""
    spec = _spec(restart="no", prevent={("exit", 0)}, force={("exit", 0)})
    assert not shall_restart(spec, "resources", None)


def test_oneshot() -> None:
    """A Type=oneshot that has done its work is not forced to do it again."""
    force = {("exit", 0), ("exit", 3)}
    assert not shall_restart(_spec(kind="oneshot", force=force), "success", ("exit", 3))
    assert shall_restart(_spec(kind="oneshot", force=force), "exit-code", ("exit", 3))
    assert shall_restart(_spec(kind="oneshot", force=force), "timeout", ("exit", 0))
    assert shall_restart(_spec(kind="exec", force=force), "success", ("exit", 0))


class TestDelay:
    def test_default(self) -> None:
        """RestartSec= is 100 ms by default, however often."""
        assert [delay(_spec(), count) for count in (0, 1, 100)] == [0.1, 0.1, 0.1]

    def test_plain(self) -> None:
        """Without steps each delay is RestartSec=."""
        assert delay(_spec(sec=1_500_000, maximum=60 * SECOND), 7) == 1.5
        assert delay(_spec(sec=1_500_000, steps=5), 7) == 1.5

    def test_never(self) -> None:
        """An infinite delay is none that ends."""
        assert delay(_spec(sec=INFINITY), 0) == math.inf

    def test_steps(self) -> None:
        """With steps the delays grow by the same factor, from the first to the longest."""
        spec = _spec(sec=SECOND, steps=4, maximum=16 * SECOND)
        assert [delay(spec, count) for count in range(7)] == pytest.approx([1, 2, 4, 8, 16, 16, 16])

    def test_one_step(self) -> None:
        """With one step the second delay is the longest."""
        spec = _spec(sec=SECOND, steps=1, maximum=60 * SECOND)
        assert [delay(spec, count) for count in range(3)] == [1, 60, 60]

    @pytest.mark.parametrize("maximum", [0, SECOND, INFINITY])
    def test_maximum_that_is_none(self, maximum: int) -> None:
        """A longest delay that is not longer than the first, or infinite, changes nothing."""
        assert delay(_spec(sec=SECOND, steps=3, maximum=maximum), 9) == 1

    def test_zero(self) -> None:
        """From nothing no factor leads anywhere."""
        spec = _spec(sec=0, steps=3, maximum=60 * SECOND)
        assert [delay(spec, count) for count in (0, 1, 3, 9)] == [0, 0, 0, 0]

    @pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
    def test_grows(self, steps: int) -> None:
        """No delay is shorter than the one before, or longer than the longest."""
        spec = _spec(sec=1, steps=steps, maximum=3600 * SECOND)
        delays = [delay(spec, count) for count in range(steps + 3)]
        assert all(a <= b for a, b in itertools.pairwise(delays))
        assert (delays[0], delays[-1]) == (1e-6, 3600)
