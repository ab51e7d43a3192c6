"""sockact.supervise.unit: a socket unit, step by step."""

from typing import Any

import pytest

from sockact.supervise.tables import Unit
from sockact.supervise.unit import Rules, UnitLife
from tests.supervise.play import UnitPlay, flags, words

U = Unit
FAILURES = ("exit-code", "signal", "core-dump", "resources")


def _listening(**more: object) -> UnitPlay:
    play = UnitPlay(**more)  # type: ignore[arg-type]
    play("start", "opened")
    assert play.life.state is U.LISTENING
    return play


class TestStart:
    def test_without_commands(self) -> None:
        """A unit is started by opening its sockets."""
        play = UnitPlay()
        assert play("start") == ":start-open Open"
        assert not play.has("is_open")
        assert play("opened") == ":listening"
        assert play.has("is_open")
        assert play.has("polls")
        assert play.left is None

    def test_all_steps(self) -> None:
        """Commands run one after the other, in their order, and the sockets are open in between."""
        play = UnitPlay(ExecStartPre="xx", ExecStartPost="xx", ExecStopPre="x", ExecStopPost="x")
        assert play("start") == ":start-pre ExecStartPre-0"
        assert play("done") == "ExecStartPre-1"
        assert play("done") == ":start-open Open"
        assert play("opened") == ":start-post ExecStartPost-0"
        assert play("done", "done") == "ExecStartPost-1 :listening"
        assert play("stop") == ":stop-pre ExecStopPre-0"
        assert play.has("is_open")
        assert play("done") == ":stop-post Close ExecStopPost-0"
        assert not play.has("is_open")
        assert play("done") == ":dead"
        assert play.end == (U.DEAD, "success")

    def test_sockets_that_come_unasked(self) -> None:
        """That sockets are open counts only for a unit that waits for it."""
        for before in ([], ["start", "opened"], ["start", "stop"]):
            play = UnitPlay()
            play(*before)
            assert play("opened") == ""

    def test_again(self) -> None:
        """What is started already is not started a second time; what has failed is."""
        play = _listening()
        assert play("start") == ""
        play("broken resources")
        assert play.end == (U.FAILED, "resources")
        assert play("start") == ":start-open Open"
        assert play.end == (U.START_OPEN, "success")

    def test_other_rules(self) -> None:
        """The rules may change at any time; what runs already is finished by the new ones."""
        play = UnitPlay(ExecStartPre="xx-", recovers=5.0)
        play("start", "done")
        play.life.set_rules(Rules(commands=flags(ExecStartPre="x")), play.now)
        assert play("done") == ":start-open Open"
        play("opened")
        assert play("limit_hit") == ":failed Close"
        again = UnitPlay(ExecStartPre="--")
        again("start", "done signal")
        again.life.set_rules(Rules(), again.now)
        assert again("done signal") == ":failed"


class TestFailures:
    @pytest.mark.parametrize("result", FAILURES)
    @pytest.mark.parametrize("index", [0, 1])
    def test_start_pre(self, result: str, index: int) -> None:
        """A command before the sockets are open fails the unit, and nothing has to be undone."""
        play = UnitPlay(ExecStartPre="xx", ExecStopPre="x", ExecStopPost="x")
        play("start", *["done"] * index)
        assert play(f"done {result}") == ":failed"
        assert play.end == (U.FAILED, result)

    @pytest.mark.parametrize("result", ["resources", "timeout"])
    def test_open(self, result: str) -> None:
        """Sockets that cannot be opened lead to an end in order."""
        play = UnitPlay(ExecStopPre="x", ExecStopPost="x")
        play("start")
        assert play(f"broken {result}") == ":stop-pre ExecStopPre-0"
        assert play("done", "done") == ":stop-post Close ExecStopPost-0 :failed"
        assert play.end == (U.FAILED, result)

    @pytest.mark.parametrize("result", FAILURES)
    def test_start_post(self, result: str) -> None:
        """A command that fails when the sockets are open leads to an end in order."""
        play = UnitPlay(ExecStartPost="xx", ExecStopPre="x")
        play("start", "opened")
        assert play(f"done {result}") == ":stop-pre ExecStopPre-0"
        assert play("done") == ":failed Close"
        assert play.end == (U.FAILED, result)

    @pytest.mark.parametrize("result", FAILURES)
    def test_stop(self, result: str) -> None:
        """A command that fails keeps nothing from its end, but that end is a failure."""
        play = _listening(ExecStopPre="xx", ExecStopPost="xx")
        play("stop")
        assert play(f"done {result}") == ":stop-post Close ExecStopPost-0"
        assert play("done signal") == ":failed"
        assert play.end == (U.FAILED, result)
        play = _listening(ExecStopPost="xx")
        play("stop", f"done {result}")
        assert play.end == (U.FAILED, result)

    @pytest.mark.parametrize("result", ["exit-code", "signal", "core-dump"])
    @pytest.mark.parametrize(
        "directive", ["ExecStartPre", "ExecStartPost", "ExecStopPre", "ExecStopPost"]
    )
    def test_ignored(self, directive: str, result: str) -> None:
        """A failure of a command with a ``-`` is none; each command has its own."""
        play = UnitPlay(**{directive: "-x"})  # type: ignore[arg-type]
        play("start", "opened", *["stop"] * directive.startswith("ExecStop"))
        assert play(f"done {result}") == f"{directive}-1"
        assert play.life.result == "success"
        play("done signal")
        assert play.life.result == "signal"

    def test_ignored_but_not_run(self) -> None:
        """A command that could not be run has failed, ``-`` or not."""
        play = UnitPlay(ExecStartPre="-")
        play("start", "done resources")
        assert play.end == (U.FAILED, "resources")

    @pytest.mark.parametrize("before", [[], ["has_triggered"], ["deferred"]])
    def test_socket_that_cannot_be_used(self, before: list[str]) -> None:
        """A unit whose sockets are of no use any more ends."""
        play = _listening()
        play(*before)
        assert play("broken resources") == ":failed Close"

    def test_socket_that_cannot_be_used_while_it_rests(self) -> None:
        """It does so, too, while nobody is started for them."""
        play = _listening(recovers=5.0)
        play("limit_hit", "broken resources")
        assert play.end == (U.FAILED, "resources")

    def test_socket_that_cannot_be_used_while_a_command_runs(self) -> None:
        """The command is ended first."""
        play = UnitPlay(ExecStartPost="x", ExecStopPre="x", ExecStopPost="x")
        play("start", "opened")
        assert play("broken resources") == ":stop-pre-sigterm KillSignal"
        assert play("done signal") == ":stop-post Close ExecStopPost-0"
        play("done")
        assert play.end == (U.FAILED, "resources")

    @pytest.mark.parametrize(
        "before", [[], ["start", "opened", "stop"], ["start", "broken signal"]]
    )
    def test_too_late(self, before: list[str]) -> None:
        """A failure of what has ended already changes nothing."""
        play = UnitPlay()
        play(*before)
        end = play.end
        assert play("broken resources", "refused resources", "limit_hit", "inactive", "stop") == ""
        assert play.end == end

    def test_while_it_stops(self) -> None:
        """Neither does one of what is being stopped."""
        play = _listening(ExecStopPre="x", ExecStopPost="x")
        play("stop")
        assert play("broken resources", "refused resources", "active") == ""
        play("done")
        assert play("broken resources", "refused resources", "active") == ""
        play("done")
        assert play.end == (U.DEAD, "success")


class TestTimes:
    def test_each_command_has_all_the_time(self) -> None:
        """TimeoutSec= is for each command."""
        play = UnitPlay(ExecStartPre="xx", ExecStartPost="x", ExecStopPre="xx")
        for what, left in (
            ("start", 10.0), ("done", 10.0), ("done", None), ("opened", 10.0), ("done", None),
            ("stop", 10.0), ("done", 10.0), ("done", None),
        ):  # fmt: skip
            play.now += 7
            play(what)
            assert play.left == left, what

    def test_without_limit(self) -> None:
        """Where there is no limit, nothing is ever due."""
        play = UnitPlay(timeout=None, each=True)
        for what in ("start", "done", "opened", "stop", "done"):
            play(what)
            assert play.left is None, what

    def test_start_pre(self) -> None:
        """A command that takes too long is ended, and the unit has failed."""
        play = UnitPlay(ExecStartPre="xx", ExecStopPost="x")
        play("start")
        assert play.late() == ":final-sigterm KillSignal"
        assert play.left == 10.0
        assert play("done signal") == ":failed"
        assert play.end == (U.FAILED, "timeout")

    def test_start_post(self) -> None:
        """With its sockets open, the unit ends in order, except that it has been ended once."""
        play = UnitPlay(ExecStartPost="xx", ExecStopPre="x", ExecStopPost="x")
        play("start", "opened")
        assert play.late() == ":stop-pre-sigterm KillSignal"
        assert play.has("is_open")
        assert play("done") == ":stop-post Close ExecStopPost-0"
        play("done")
        assert play.end == (U.FAILED, "timeout")

    def test_stop_pre(self) -> None:
        """A command that does not end is killed, and then the sockets are closed."""
        play = _listening(ExecStopPre="x", ExecStopPost="x")
        play("stop")
        assert play.late() == ":stop-pre-sigterm KillSignal"
        assert play.late() == ":stop-pre-sigkill FinalKillSignal"
        assert play("done signal") == ":stop-post Close ExecStopPost-0"

    def test_stop_post(self) -> None:
        """So is one when the sockets are closed."""
        play = _listening(ExecStopPost="x")
        play("stop")
        assert play.late() == ":final-sigterm KillSignal"
        assert play.late() == ":final-sigkill FinalKillSignal"
        assert play("done signal") == ":failed"
        assert play.end == (U.FAILED, "timeout")

    @pytest.mark.parametrize(
        "directive", ["ExecStartPre", "ExecStartPost", "ExecStopPre", "ExecStopPost"]
    )
    def test_command_that_stays(self, directive: str) -> None:
        """One that cannot be ended keeps the unit from a new start, not from its end."""
        commands = {"ExecStopPost": "x", directive: "x"}
        play = UnitPlay(**commands)  # type: ignore[arg-type]
        play("start", "opened", *["stop"] * directive.startswith("ExecStop"))
        said = [play.late() for _ in range(3)][-1]
        closes = directive in ("ExecStartPost", "ExecStopPre")
        assert said == (":failed Close" if closes else ":failed")
        assert play.end == (U.FAILED, "timeout")
        assert play("start") == ""
        assert play("done signal") == ""
        assert play.end == (U.FAILED, "timeout")
        assert play("start").startswith((":start-pre", ":start-open"))

    def test_early(self) -> None:
        """Nothing happens before it is due."""
        play = UnitPlay(ExecStartPre="x")
        play("start")
        assert not play.life.expire(play.now + 9.9)
        assert play.life.state is U.START_PRE
        play("done", "opened")
        assert not play.life.expire(play.now + 1e9)


class TestStop:
    @pytest.mark.parametrize(
        ("before", "then"),
        [
            ([], ""),
            (["start"], ":stop-pre-sigterm KillSignal"),
            (["start", "done"], ":stop-post ExecStopPost-0"),
            (["start", "done", "opened"], ":stop-pre-sigterm KillSignal"),
            (["start", "done", "opened", "done"], ":stop-pre ExecStopPre-0"),
            (["start", "done", "opened", "done", "deferred"], ":stop-pre ExecStopPre-0"),
            (["start", "done", "opened", "done", "has_triggered"], ":stop-pre ExecStopPre-0"),
            (["start", "done", "opened", "done", "limit_hit"], ":stop-pre ExecStopPre-0"),
            (["start", "done", "opened", "done", "stop"], ""),
            (["start", "done", "opened", "stop"], ""),
            (["start", "done", "opened", "done", "stop", "done"], ""),
            (["start", "done signal"], ""),
        ],
    )
    def test_each_state(self, before: list[str], then: str) -> None:
        """A command that runs is ended; else ExecStopPre= is run, if the sockets are open."""
        play = UnitPlay(each=True, recovers=5.0)
        play(*before)
        assert play("stop") == then
        assert play("stop") == ""

    @pytest.mark.parametrize(("result", "state"), [("success", U.DEAD), ("signal", U.FAILED)])
    def test_command_that_is_told_to_end(self, result: str, state: Unit) -> None:
        """A command that ends because of the stop is the last one, and its result counts."""
        for before in (["start"], ["start", "done", "done", "opened"]):
            play = UnitPlay(ExecStartPre="xx", ExecStartPost="xx")
            play(*before, "stop")
            assert play(f"done {result}") == f":{state.value} Close"
            assert play.end == (state, result)

    def test_service_goes_on(self) -> None:
        """What its service does afterwards does not matter."""
        play = _listening()
        play("has_triggered", "stop")
        assert play("inactive", "active") == ""
        assert play.end == (U.DEAD, "success")


class TestTraffic:
    def test_round(self) -> None:
        """While its service runs, the unit does not listen."""
        play = _listening()
        assert play("has_triggered") == ":running"
        assert not play.has("polls")
        assert play.has("is_open")
        assert play.life.triggered == 1
        assert play("active") == ""
        assert play("inactive") == ":listening"
        assert play.has("polls")
        assert play("inactive") == ""

    def test_service_that_was_started_otherwise(self) -> None:
        """A service that runs gets the traffic, whoever has started it."""
        play = _listening()
        assert play("active") == ":running"
        assert play.life.triggered == 0

    def test_accepts(self) -> None:
        """With Accept=yes the unit always listens."""
        play = _listening(accepts=True)
        assert play("active", "inactive") == ""
        assert play.has("polls")

    @pytest.mark.parametrize("before", [[], ["has_triggered"], ["deferred"]])
    def test_refused(self, before: list[str]) -> None:
        """A service that cannot be started any more fails the unit."""
        play = _listening()
        play(*before)
        assert play("refused service-start-limit-hit") == ":failed Close"
        assert play.end == (U.FAILED, "service-start-limit-hit")

    def test_flushes_on_every_entry(self) -> None:
        """With FlushPending= what came while a service was starting or ending is thrown away."""
        play = UnitPlay(flushes=True, recovers=5.0, ExecStartPost="x")
        play("start")
        assert play("opened") == ":start-post ExecStartPost-0"
        assert play("done") == ":listening Flush"
        assert play("has_triggered", "inactive") == ":running :listening Flush"
        assert play("active", "inactive") == ":running :listening Flush"
        assert play("limit_hit") == ":limited"
        assert play.late() == ":listening Flush"
        assert (
            play("deferred", "has_triggered", "inactive") == ":deferred :running :listening Flush"
        )

    def test_never_flushes_connections(self) -> None:
        """With Accept=yes nothing is thrown away."""
        play = UnitPlay(flushes=True, accepts=True)
        assert play("start", "opened") == ":start-open Open :listening"

    def test_deferred(self) -> None:
        """A service that has to wait is waited for, without traffic being looked at."""
        play = _listening(patience=7.0)
        assert play("deferred") == ":deferred"
        assert not play.has("polls")
        assert play.left == 7.0
        assert play("deferred", "inactive") == ""
        assert play("has_triggered") == ":running"
        assert play.left is None

    def test_deferred_and_started_otherwise(self) -> None:
        """It may be started by somebody else meanwhile."""
        play = _listening()
        play("deferred")
        assert play.left is None
        assert play("active") == ":running"

    def test_deferred_too_long(self) -> None:
        """DeferTriggerMaxSec= ends the waiting, and the unit."""
        play = _listening(patience=7.0, ExecStopPre="x")
        play("deferred")
        assert play.late() == ":stop-pre ExecStopPre-0"
        assert play.life.result == "timeout"


class TestLimit:
    def _use_up(self, life: UnitLife, now: float) -> int:
        return next(count for count in range(10) if not life.allows(now))

    def test_counts(self) -> None:
        """Triggers are counted in a window."""
        play = _listening(trigger=(2_000_000, 3))
        assert self._use_up(play.life, 100.0) == 3
        assert not play.life.allows(102.0)
        assert play.life.allows(102.1)

    @pytest.mark.parametrize("trigger", [(0, 3), (2_000_000, 0)])
    def test_off(self, trigger: tuple[int, int]) -> None:
        """Without an interval or a burst there is no limit."""
        play = _listening(trigger=trigger)
        assert all(play.life.allows(100.0) for _ in range(1000))

    def test_ends_the_unit(self) -> None:
        """A limit that is hit is the end."""
        play = _listening(ExecStopPre="x")
        assert play("limit_hit") == ":stop-pre ExecStopPre-0"
        assert play("done") == ":failed Close"
        assert play.end == (U.FAILED, "trigger-limit-hit")

    def test_begins_anew(self) -> None:
        """A unit that is started again has all of its triggers."""
        play = _listening()
        self._use_up(play.life, play.now)
        play("limit_hit", "start", "opened")
        assert self._use_up(play.life, play.now) == 3

    @pytest.mark.parametrize("accepts", [False, True])
    def test_recovers(self, accepts: bool) -> None:
        """With X-TriggerLimitRecoverSec= the sockets stay open, and it listens again."""
        play = _listening(recovers=60.0, trigger=(2_000_000_000, 3), accepts=accepts)
        self._use_up(play.life, play.now)
        assert play("limit_hit") == ":limited"
        assert play.end == (U.LIMITED, "success")
        assert play.has("is_open")
        assert not play.has("polls")
        assert play.left == 60.0
        assert play("limit_hit", "active", "inactive", "has_triggered", "deferred") == ""
        assert play.late() == ":listening"
        assert play.end == (U.LISTENING, "success")
        assert play.life.deadline() is None
        assert self._use_up(play.life, play.now) == 3

    @pytest.mark.parametrize("change", [{"recovers": 60.0}, {"trigger": (2_000_000, 5)}])
    def test_other_limit(self, change: dict[str, Any]) -> None:
        """Another limit is counted anew and ends a rest; any other change does neither."""
        same: dict[str, Any] = {"trigger": (2_000_000, 3), "recovers": 90.0}
        for state in (U.LISTENING, U.LIMITED):
            play = _listening(**same)
            self._use_up(play.life, play.now)
            play(*["limit_hit"] * (state is U.LIMITED))
            until = play.life.deadline()
            play.life.set_rules(Rules(timeout=1.0, **same), play.now)
            assert play.life.deadline() == until
            assert not play.life.allows(play.now)
            rules = Rules(**{**same, **change})
            play.life.set_rules(rules, play.now)
            assert play.life.deadline() == (play.now if until else None)
            assert words(play.life.expire(play.now)) == (":listening" if until else "")
            assert self._use_up(play.life, play.now) == rules.trigger[1]

    def test_rests_only_where_it_listens(self) -> None:
        """A limit that is reported elsewhere changes nothing."""
        for recovers in (None, 60.0):
            play = _listening(recovers=recovers)
            play("has_triggered")
            assert play("limit_hit") == ""
            assert play.end == (U.RUNNING, "success")
