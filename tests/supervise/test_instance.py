"""sockact.supervise.instance: one run of a service, step by step.

What systemd itself does with many of these services is in test_life_systemd; here is the rest: what
cannot be seen from outside, what version 252 does not have, and what is left out there.
"""

import math
from typing import Any

import pytest

from sockact.supervise.instance import Life, Plan
from sockact.supervise.tables import IS_OVER, Instance
from tests.supervise.play import Play, flags, words

S = Instance
FAILURES = ("exit-code", "signal", "core-dump", "resources")


class TestStart:
    def test_simple(self) -> None:
        """Type=simple has started when there is a process."""
        play = Play()
        assert play("start") == ":start ExecStart-0 :running"
        assert play.has("main")
        assert play.has("ready")
        assert play("executed") == ""

    def test_exec(self) -> None:
        """Type=exec has started when the process runs its program."""
        play = Play("exec")
        assert play("start") == ":start ExecStart-0"
        assert not play.has("ready")
        assert play("executed") == ":running"

    def test_exec_that_could_not(self) -> None:
        """Without its program, Type=exec has not started, and ExecStop= has nothing to stop."""
        play = Play("exec", ExecStop="x")
        play("start")
        assert (
            play("ends exit-code") == ":stop-sigterm KillSignal :final-sigterm KillSignal :failed"
        )

    def test_exec_that_ends_before_it_is_seen(self) -> None:
        """A program that has ended before one knows that it ran may end so."""
        play = Play("exec", ExecStop="x")
        play("start")
        assert play("ends") == ":stop ExecStop-0"
        assert play.has("ready")
        remains = Play("exec", remains=True)
        remains("start")
        assert remains("ends") == ":exited"

    @pytest.mark.parametrize("kind", ["notify", "notify-reload"])
    def test_notify(self, kind: str) -> None:
        """Type=notify has started when it says so, once."""
        play = Play(kind)
        assert play("start", "executed") == ":start ExecStart-0"
        assert not play.has("said")
        assert play("said_ready") == ":running"
        assert play.has("said")
        assert play("said_ready") == ""

    @pytest.mark.parametrize("kind", ["simple", "exec", "oneshot"])
    def test_word_that_does_not_count(self, kind: str) -> None:
        """Other types start without a word, and one does not make them start."""
        play = Play(kind)
        play("start")
        before = play.life.state
        assert play("said_ready") == ""
        assert play.life.state is before
        assert play.has("said")

    def test_oneshot(self) -> None:
        """Type=oneshot has started when its last program has ended, and is over then."""
        play = Play("oneshot", ExecStart="xxx", ExecStop="x")
        assert play("start") == ":start ExecStart-0"
        assert play("ends") == "ExecStart-1"
        assert play("ends") == "ExecStart-2"
        assert not play.has("ready")
        assert play("ends") == ":stop ExecStop-0"
        assert play.has("ready")
        play("done")
        assert play.end == (S.DEAD, "success")

    def test_oneshot_without_programs(self) -> None:
        """A Type=oneshot without ExecStart= is up at once; whoever looks on sees it start."""
        play = Play("oneshot", ExecStart="", remains=True)
        assert play("start") == ":start :exited"

    def test_all_steps(self) -> None:
        """Commands run one after the other, in their order."""
        play = Play(
            ExecCondition="xx",
            ExecStartPre="xx",
            ExecStartPost="xx",
            ExecStop="x",
            ExecStopPost="x",
        )
        assert play("start", "done", "done") == (
            ":condition ExecCondition-0 ExecCondition-1 :start-pre ExecStartPre-0"
        )
        assert (
            play("done", "done") == "ExecStartPre-1 :start ExecStart-0 :start-post ExecStartPost-0"
        )
        assert play("done", "done") == "ExecStartPost-1 :running"
        assert play("stop") == ":stop ExecStop-0"
        assert play("done") == ":stop-sigterm KillSignal"
        assert play("ends") == ":stop-post ExecStopPost-0"
        assert play("done") == ":final-sigterm KillSignal :dead"

    @pytest.mark.parametrize("state", [state for state in S if state not in IS_OVER])
    def test_again(self, state: Instance) -> None:
        """What runs is not started a second time."""
        life = Life(Plan(commands=flags(ExecStart="x")))
        life.state = state
        assert not life.start(0.0)
        assert life.state is state

    def test_after_a_failure(self) -> None:
        """A life can begin anew, and knows nothing of the one before."""
        play = Play("notify", watchdog=2.0, runtime=50.0)
        play("start", "said_ready", "set_watchdog 9", "said_stopping", "ends signal")
        assert play.end == (S.FAILED, "signal")
        play.now = 500.0
        assert play("start") == ":start ExecStart-0"
        assert play.end == (S.START, "success")
        assert not play.has("ready")
        assert not play.has("said")
        play("said_ready")
        assert play.left == 2.0
        play("set_watchdog 0")
        assert play.left == 50.0


class TestFailures:
    @pytest.mark.parametrize("result", FAILURES)
    @pytest.mark.parametrize(
        ("commands", "before"),
        [
            ({"ExecStartPre": "xx"}, ["start", "done"]),
            ({"ExecCondition": "xx"}, ["start", "done"]),
            ({"ExecStartPost": "xx"}, ["start", "done"]),
        ],
    )
    def test_of_a_later_command(
        self, commands: dict[str, str], before: list[str], result: str
    ) -> None:
        """A command that fails ends the start; ExecStop= is not run, ExecStopPost= is."""
        play = Play(ExecStop="x", ExecStopPost="x", **commands)  # type: ignore[arg-type]
        play(*before)
        assert play(f"done {result}" + " 255" * (result == "exit-code")).startswith(":stop-sigterm")
        play(*["ends"] * play.has("main"), "done")
        assert play.end == (S.FAILED, result)

    @pytest.mark.parametrize("directive", ["ExecCondition", "ExecStartPre"])
    def test_first_that_cannot_be_run(self, directive: str) -> None:
        """If nothing could be run at all, nothing is cleaned up either."""
        play = Play(ExecStop="x", ExecStopPost="x", **{directive: "-x"})  # type: ignore[arg-type]
        play("start")
        assert play("done resources") == ":failed"
        assert play.end == (S.FAILED, "resources")

    def test_start_that_cannot_be_run(self) -> None:
        """A main process that could not be made is no success, even if its failure were ignored."""
        play = Play(ExecStart="-", ExecStopPost="x")
        life = play.life
        life.start(0.0)
        life.main_ended("resources", 0.0)
        assert play.end == (S.STOP_SIGTERM, "resources")
        play("gone")
        assert play.life.state is S.STOP_POST

    def test_post_that_cannot_be_run(self) -> None:
        """Where ExecStartPost= cannot be run, the service that runs already is stopped."""
        play = Play(ExecStartPost="x", ExecStop="x")
        play("start")
        assert play("done resources") == ":stop ExecStop-0"

    @pytest.mark.parametrize("directive", ["ExecStop", "ExecStopPost"])
    def test_stop_that_cannot_be_run(self, directive: str) -> None:
        """A stop goes on if its commands cannot be run."""
        play = Play(**{directive: "xx"})  # type: ignore[arg-type]
        play("start", "stop")
        if directive == "ExecStop":
            assert play("done resources") == ":stop-sigterm KillSignal"
            play("ends")
        else:
            play("ends", "done resources")
        assert play.end == (S.FAILED, "resources")

    @pytest.mark.parametrize("result", ["exit-code", "signal", "core-dump"])
    @pytest.mark.parametrize(
        "directive",
        [
            "ExecCondition",
            "ExecStartPre",
            "ExecStartPost",
            "ExecReload",
            "ExecStop",
            "ExecStopPost",
        ],
    )
    def test_ignored(self, directive: str, result: str) -> None:
        """A failure of a command with a ``-`` is none; each command has its own."""
        play = Play(**{directive: "-x"})  # type: ignore[arg-type]
        play("start")
        if directive == "ExecReload":
            play("reload")
        elif directive == "ExecStop":
            play("stop")
        elif directive == "ExecStopPost":
            play("stop", "ends")
        assert play(f"done {result}") == f"{directive}-1"
        assert play.life.result == "success"
        play("done signal")
        assert play.life.result == ("success" if directive == "ExecReload" else "signal")
        assert play.life.reload_result == ("signal" if directive == "ExecReload" else "success")

    def test_ignored_main(self) -> None:
        """An ignored failure of the main process is a clean end, in whatever state."""
        for before in ([], ["stop"], ["reload"]):
            play = Play(ExecStart="-", ExecStop="x", ExecReload="x")
            play("start", *before, "ends exit-code")
            assert play.life.result == "success"

    def test_ignored_main_of_several(self) -> None:
        """What is ignored goes by the program that ends, also when another state has begun."""
        play = Play("oneshot", ExecStart="x-x")
        play("start", "ends", "stop", "ends signal")
        assert play.end == (S.DEAD, "success")
        play = Play("oneshot", ExecStart="-xx")
        play("start", "ends signal", "stop", "ends signal")
        assert play.end == (S.FAILED, "signal")

    def test_ignored_main_while_a_later_command_runs(self) -> None:
        """The number of another command has nothing to do with the main process."""
        play = Play(ExecStart="-", ExecStartPost="xxx", remains=True)
        play("start", "done", "done", "ends signal", "done")
        assert play.end == (S.EXITED, "success")

    @pytest.mark.parametrize("status", [1, 2, 100, 254])
    def test_condition(self, status: int) -> None:
        """A condition that does not hold is no failure, but nothing is started."""
        play = Play(ExecCondition="x")
        play("start")
        play.life.command_ended("exit-code", play.now, status=status)
        play("gone", "gone")
        assert play.end == (S.DEAD, "exec-condition")

    def test_condition_that_fails(self) -> None:
        """A condition that could not be found out is a failure."""
        play = Play(ExecCondition="x")
        play("start")
        play.life.command_ended("exit-code", play.now, status=255)
        play("gone", "gone")
        assert play.end == (S.FAILED, "exit-code")

    def test_status_elsewhere(self) -> None:
        """Only of a condition an exit status says more than that it has failed."""
        play = Play(ExecStartPre="x")
        play("start")
        play.life.command_ended("exit-code", play.now, status=1)
        play("gone", "gone")
        assert play.end == (S.FAILED, "exit-code")

    def test_protocol(self) -> None:
        """A Type=notify that ends well before it is ready has not kept to the protocol."""
        for kind in ("notify", "notify-reload"):
            play = Play(kind, ExecStop="x")
            play("start", "ends")
            assert play.end == (S.FAILED, "protocol")

    def test_first_failure_counts(self) -> None:
        """A failure that follows from another does not hide it."""
        play = Play(ExecStop="x", ExecStopPost="x")
        play("start", "stop", "done signal", "ends core-dump", "done exit-code")
        assert play.end == (S.FAILED, "signal")


class TestTimes:
    def test_each_command_has_all_the_time(self) -> None:
        """TimeoutStartSec= and TimeoutStopSec= are for each command, not for all together."""
        play = Play("oneshot", ExecStart="xx", ExecStartPre="xx", ExecStop="xx", remains=True)
        for what, left in (
            ("start", 10.0), ("done", 10.0), ("done", 10.0), ("ends", 10.0), ("ends", None),
            ("stop", 20.0), ("done", 20.0),
        ):  # fmt: skip
            play.now += 7
            play(what)
            assert play.left == left, what

    def test_every_state(self) -> None:
        """What limits each state."""
        play = Play("notify-reload", runtime=1000.0, each=True)
        play.others = True
        for what, left in (
            ("start", 10), ("done", 10), ("done", 10), ("said_ready", 10), ("done", 1000),
            ("reload", 10), ("done", 10), ("said_reloading", 10), ("said_ready", 1000),
            ("said_broken", 30), ("stop", 20), ("ends", 20), ("gone", 20), ("done", 20),
            ("gone", None),
        ):  # fmt: skip
            play(what)
            assert play.left == left, what

    def test_without_limits(self) -> None:
        """Where there is no limit, nothing is ever due."""
        play = Play("notify-reload", start=None, stop=None, abort=None, each=True)
        for what in ("start", "done", "done", "said_ready", "done", "reload", "done", "said_reloading",
                     "said_ready", "said_broken", "stop", "ends", "done"):  # fmt: skip
            play(what)
            assert play.left is None, what
        assert play.end == (S.FAILED, "watchdog")

    @pytest.mark.parametrize("directive", ["ExecCondition", "ExecStartPre", "ExecStartPost"])
    def test_late_start(self, directive: str) -> None:
        """A start that takes too long is a stop, without ExecStop=."""
        play = Play(ExecStop="x", **{directive: "x"})  # type: ignore[arg-type]
        play("start")
        assert play.late() == ":stop-sigterm KillSignal"
        assert play.life.result == "timeout"

    def test_runtime(self) -> None:
        """RuntimeMaxSec= is counted from when it came up, reloads or not, and is a proper stop."""
        play = Play("notify", runtime=50.0, ExecReload="x", ExecStop="x")
        play.now = 200.0
        play("start")
        play.now = 203.0
        play("said_ready")
        assert play.life.deadline() == 253.0
        play.now = 240.0
        play("reload")
        assert play.life.deadline() == 250.0
        play("done")
        assert play.life.deadline() == 253.0
        play("reload")
        play.now = 249.0
        play("extend 60")
        assert play.life.deadline() == 309.0
        play.now = 300.0
        play("done")
        assert play.life.deadline() == 253.0
        assert play.late() == ":stop ExecStop-0"
        assert play.life.result == "timeout"

    def test_early(self) -> None:
        """Nothing happens before it is due."""
        play = Play("notify", watchdog=5.0)
        play("start", "said_ready")
        assert not play.life.expire(play.now + 4.9)
        assert not Play().life.expire(1e9)
        assert play.life.expire(play.now + 5.0)

    def test_stop_by_force(self) -> None:
        """A stop becomes more and more urgent, and ends even if a process never does."""
        play = Play(ExecStop="x", ExecStopPost="x")
        play("start", "stop")
        assert play.late() == ":stop-sigterm KillSignal"
        assert play.late() == ":stop-sigkill FinalKillSignal"
        assert play.late() == ":stop-post"  # the command before has not ended
        assert play.late() == ":final-sigterm KillSignal"
        assert play.late() == ":final-sigkill FinalKillSignal"
        assert play.late() == ":failed"
        assert play.life.result == "timeout"
        assert play.left is None
        assert play("ends signal", "done signal", "gone", "stop", "reload") == ""
        assert play.end == (S.FAILED, "timeout")
        assert play.has("restarts")

    def test_without_sigkill(self) -> None:
        """With SendSIGKILL=no nothing is killed; what is left at the end forbids a restart."""
        play = Play(kills=False, ExecStopPost="x")
        play("start", "stop")
        assert play.late() == ":stop-post ExecStopPost-0"
        assert play("done") == ":final-sigterm KillSignal"
        assert play.has("restarts")
        assert play.late() == ":failed"
        assert not play.has("restarts")
        assert play("start") == ""
        play("ends")
        assert play("start") == ":start ExecStart-0 :running"
        assert play.has("restarts")

    def test_watchdog_without_sigkill(self) -> None:
        """With SendSIGKILL=no the watchdog's signal is the last one."""
        play = Play(kills=False)
        play("start", "said_broken")
        assert play.late() == ":final-sigterm KillSignal"

    def test_extend(self) -> None:
        """EXTEND_TIMEOUT_USEC= makes an end later, never earlier, and the watchdog's too."""
        play = Play("notify", watchdog=3.0)
        play("start", "extend 4")
        assert play.left == 10.0
        play("extend 25")
        assert play.left == 25.0
        play("extend inf")
        assert play.life.deadline() is None
        play("said_ready")
        assert play.left == 3.0
        play("extend 0", "extend 7")
        assert play.left == 7.0

    def test_extend_what_has_no_end(self) -> None:
        """Where there is no limit, there is nothing to extend."""
        play = Play()
        play("start", "extend 5")
        assert play.left is None

    def test_extend_each_state(self) -> None:
        """The next state has its own time again."""
        play = Play("notify", ExecStartPost="x")
        play("start", "extend 500", "said_ready")
        assert play.left == 10.0


class TestWatchdog:
    def test_begins_when_it_has_started(self) -> None:
        """The watchdog waits from when the service says that it has started, also in start-post."""
        play = Play("notify", watchdog=3.0, ExecStartPost="x")
        play("start", "said_alive")
        assert play.left == 10.0
        play("said_ready")
        assert play.left == 3.0
        assert play.late() == ":stop-watchdog WatchdogSignal"
        assert play.life.result == "watchdog"

    def test_goes_on(self) -> None:
        """From start-post to running, and through a reload, the time goes on."""
        play = Play("notify-reload", watchdog=8.0, ExecStartPost="x", ExecReload="x")
        play("start", "said_ready")
        for what in ("done", "reload", "done", "said_reloading", "said_ready"):
            play.now += 1
            play(what)
        assert play.left == 3.0
        play("said_alive")
        assert play.left == 8.0

    def test_ends_with_the_service(self) -> None:
        """What stops or has ended need not say that it lives."""
        for what in (["stop"], ["ends"], ["said_stopping"]):
            play = Play("notify", watchdog=3.0, remains=True)
            play("start", "said_ready", *what)
            assert play.left in (None, 20.0)
            play("said_alive", "set_watchdog 2")
            assert play.left in (None, 20.0)

    def test_set(self) -> None:
        """WATCHDOG_USEC= counts from now on, or switches it off."""
        play = Play("notify", watchdog=3.0)
        play("start", "said_ready")
        play.now += 2
        play("set_watchdog 5")
        assert play.left == 5.0
        play("set_watchdog 0", "said_alive")
        assert play.life.deadline() is None

    def test_set_before(self) -> None:
        """WATCHDOG_USEC= before READY=1 is for later."""
        play = Play("notify")
        play("start", "set_watchdog 5")
        assert play.left == 10.0
        play("said_ready")
        assert play.left == 5.0

    def test_stopped(self) -> None:
        """A stop does not wait for the one that the watchdog's signal is to end."""
        play = Play()
        play("start", "said_broken")
        assert play("stop") == ":stop-sigterm KillSignal"

    @pytest.mark.parametrize(
        "before",
        [
            ["start"],
            ["start", "done"],
            ["start", "done", "ends"],
            ["start", "done", "ends", "done"],
        ],
    )
    def test_trigger(self, before: list[str]) -> None:
        """WATCHDOG=trigger counts while it starts, too, and when only others of it are left."""
        play = Play("oneshot", remains=True, ExecStartPre="x", ExecStartPost="x")
        play.others = True
        play(*before)
        assert play("said_broken") == ":stop-watchdog WatchdogSignal"
        assert play.life.result == "watchdog"

    @pytest.mark.parametrize(
        "before", [["stop"], ["stop", "ends"], ["stop", "ends", "gone", "done"]]
    )
    def test_trigger_while_it_stops(self, before: list[str]) -> None:
        """What stops already is not stopped in another way, and has not failed by that."""
        play = Play(ExecStop="x", ExecStopPost="x")
        play.others = True
        play("start", *before)
        state = play.life.state
        assert play("said_broken") == ""
        assert play.end == (state, "success")


class TestMainEnds:
    @pytest.mark.parametrize(
        ("before", "clean", "failed"),
        [
            ([], ":stop ExecStop-0", ":stop-sigterm KillSignal"),
            (["reload"], "", ""),
            (["said_reloading"], ":stop ExecStop-0", ":stop ExecStop-0"),
            (["stop"], "", ""),
            (["said_broken"], "", ""),
            (["said_stopping"], "", ""),
        ],
    )
    def test_each_state(self, before: list[str], clean: str, failed: str) -> None:
        """What an end of the main process means depends on what goes on."""
        for result, expected in (("success", clean), ("signal", failed)):
            play = Play(ExecReload="x", ExecStop="x", ExecStopPost="x")
            play.others = True
            play("start", *before)
            known = play.life.result
            assert play(f"ends {result}") == expected
            assert play.life.result == (result if known == "success" else known)

    @pytest.mark.parametrize(
        ("result", "remains", "then"),
        [
            ("success", False, ":stop ExecStop-0"),
            ("success", True, ":exited"),
            ("signal", False, ":stop-sigterm KillSignal"),
            ("signal", True, ":stop-sigterm KillSignal"),
        ],
    )
    @pytest.mark.parametrize("what", ["start-post", "reload"])
    def test_while_a_command_runs(self, what: str, result: str, remains: bool, then: str) -> None:
        """The command is finished first, and the ones behind it."""
        commands = {"ExecStartPost" if what == "start-post" else "ExecReload": "xx"}
        play = Play("exec", remains=remains, ExecStop="x", **commands)  # type: ignore[arg-type]
        play.others = True
        play("start", "executed", *["reload"] * (what == "reload"))
        assert play(f"ends {result}") == ""
        assert play("done").endswith("-1")
        assert play("done") == then

    def test_signalled(self) -> None:
        """A main process that ends of the signal that was to reload it is stopped properly."""
        play = Play("notify-reload", ExecStop="x", remains=True)
        play("start", "said_ready", "reload")
        assert play("ends signal") == ":stop ExecStop-0"
        play("done")
        assert play.end == (S.FAILED, "signal")

    def test_in_exited(self) -> None:
        """There is no main process to end any more."""
        play = Play(remains=True, ExecStop="x")
        assert play("start", "ends").endswith(":running :exited")
        assert play("stop") == ":stop ExecStop-0"


class TestAlone:
    """The main process ends, and it is known that no other one is left."""

    def _ends_alone(self, play: Play, result: str = "success") -> str:
        return play._follow(play.life.main_ended(result, play.now, alone=True))

    def test_nobody_is_waited_for(self) -> None:
        """It does not come into states in which processes are told to end."""
        play = Play()
        play("start")
        assert self._ends_alone(play) == ":dead"
        failing = Play("exec", ExecStop="x")
        failing("start")
        assert self._ends_alone(failing, "exit-code") == ":failed"

    def test_that_holds_until_a_command_is_run(self) -> None:
        """What ExecStop= leaves behind is told to end."""
        play = Play(ExecStop="x", ExecStopPost="x")
        play("start")
        assert self._ends_alone(play) == ":stop ExecStop-0"
        assert play("done") == ":stop-sigterm KillSignal :stop-post ExecStopPost-0"
        assert play("done") == ":final-sigterm KillSignal :dead"
        assert play("start") == ":start ExecStart-0 :running"

    @pytest.mark.parametrize("kind", ["simple", "exec", "notify", "oneshot"])
    @pytest.mark.parametrize("commands", ["", "ExecStop", "ExecStopPost", "ExecStartPost"])
    @pytest.mark.parametrize("result", ["success", "exit-code"])
    @pytest.mark.parametrize("remains", [False, True])
    def test_the_end_is_the_same(
        self, kind: str, commands: str, result: str, remains: bool
    ) -> None:
        """It is where it would have come to if it had been told later that nobody is left."""
        more: Any = dict.fromkeys(commands.split(), "x")
        alone, told = (Play(kind, remains=remains, **more) for _ in range(2))
        for play in (alone, told):
            play("start", "executed")
        self._ends_alone(alone, result)
        told(f"ends {result}")
        for _ in range(4):
            assert alone.end == told.end
            assert alone.left == told.left
            for play in (alone, told):
                if play.has("control"):
                    play("done")


class TestStop:
    @pytest.mark.parametrize(
        ("before", "then"),
        [
            ([], ":stop-sigterm KillSignal"),
            (["done"], ":stop-sigterm KillSignal"),
            (["done", "done"], ":stop-sigterm KillSignal"),
            (["done", "done", "said_ready"], ":stop-sigterm KillSignal"),
            (["done", "done", "said_ready", "done"], ":stop ExecStop-0"),
            (["done", "done", "said_ready", "done", "ends"], ":stop ExecStop-0"),
            (["done", "done", "said_ready", "done", "reload"], ":stop-sigterm KillSignal"),
            (["done", "done", "said_ready", "done", "reload", "done"], ":stop-sigterm KillSignal"),
            (["done", "done", "said_ready", "done", "said_reloading"], ":stop-sigterm KillSignal"),
            (["done", "done", "said_ready", "done", "stop"], ""),
            (["done", "done", "said_ready", "done", "said_stopping"], ""),
            (["done", "done", "said_ready", "done", "said_broken"], ":stop-sigterm KillSignal"),
        ],
    )
    def test_each_state(self, before: list[str], then: str) -> None:
        """ExecStop= is run if the service is up and nothing else runs; else it is ended at once."""
        play = Play("notify-reload", each=True, remains=True)
        play.others = True
        play("start", *before)
        assert play("stop") == then
        assert play("stop") == ""

    @pytest.mark.parametrize("result", ["success", "signal", "exit-code"])
    @pytest.mark.parametrize(
        "directive", ["ExecCondition", "ExecStartPre", "ExecStartPost", "ExecReload"]
    )
    def test_command_that_is_told_to_end(self, directive: str, result: str) -> None:
        """A command that ends because of the stop is the last one, and its result counts."""
        play = Play(**{directive: "xx"})  # type: ignore[arg-type]
        play("start", *["reload"] * (directive == "ExecReload"), "stop")
        assert play.life.state is S.STOP_SIGTERM
        play(*["ends"] * play.has("main"))
        play(f"done {result}")
        assert play.end == ((S.DEAD, result) if result == "success" else (S.FAILED, result))

    def test_ignored_command_that_is_told_to_end(self) -> None:
        """The result of a command with a ``-`` does not count either."""
        play = Play(ExecStartPre="x-")
        play("start", "done", "stop", "done signal")
        assert play.end == (S.DEAD, "success")

    def test_oneshot_that_is_told_to_end(self) -> None:
        """No further program is run when it is being stopped."""
        play = Play("oneshot", ExecStart="xx")
        play("start", "stop")
        assert play("ends") == ":final-sigterm KillSignal :dead"

    def test_stopping(self) -> None:
        """One that ends by itself gets no signal, and has the time for it."""
        play = Play("notify", ExecStop="x", ExecStopPost="x")
        play("start", "said_ready")
        assert play("said_stopping") == ":stop-sigterm"
        assert play.left == 20.0
        assert play("ends") == ":stop-post ExecStopPost-0"

    def test_stopping_too_long(self) -> None:
        """One that says that it ends, and does not, is killed."""
        play = Play("notify")
        play("start", "said_ready", "said_stopping")
        assert play.late() == ":stop-sigkill FinalKillSignal"
        play("ends signal")
        assert play.end == (S.FAILED, "timeout")

    @pytest.mark.parametrize("before", [["said_ready", "done"], ["said_ready", "done", "reload"]])
    def test_stopping_in_a_reload(self, before: list[str]) -> None:
        """A reload that waits for the service itself does not outlive it."""
        play = Play("notify-reload", ExecStartPost="x")
        play("start", *before)
        assert play("said_stopping") == ":stop-sigterm"

    @pytest.mark.parametrize("directive", ["ExecStartPost", "ExecReload"])
    def test_stopping_while_a_command_runs(self, directive: str) -> None:
        """It counts when the command has ended."""
        play = Play("notify", **{directive: "x"})  # type: ignore[arg-type]
        play("start", "said_ready", *["reload"] * (directive == "ExecReload"))
        assert play("said_stopping") == ""
        assert play("done") == ":stop-sigterm"

    @pytest.mark.parametrize("how", ["done exit-code", "late"])
    def test_stopping_while_a_reload_fails(self, how: str) -> None:
        """It counts, too, if the reload has come to nothing."""
        play = Play("notify", ExecReload="x")
        play("start", "said_ready", "reload", "said_stopping")
        assert (play.late() if how == "late" else play(how)).endswith(":stop-sigterm")

    def test_stopping_is_the_last_word(self) -> None:
        """Who has said that it ends, is not ready any more, and reloads nothing."""
        play = Play("notify")
        play("start", "said_stopping")
        assert play("said_ready", "said_reloading", "said_ready") == ""
        assert play.life.state is S.START
        play("ends")
        assert play.end == (S.FAILED, "protocol")

    def test_restart_of_what_said_so(self) -> None:
        """In the next life the word is forgotten."""
        play = Play("notify")
        play("start", "said_ready", "said_stopping", "ends", "start")
        assert play("said_ready") == ":running"


class TestReload:
    def test_by_command(self) -> None:
        """ExecReload= is run, and that is it."""
        play = Play(ExecReload="xx")
        play("start")
        assert play.life.can_reload()
        assert play("reload") == ":reload ExecReload-0"
        assert not play.life.can_reload()
        assert play("reload") == ""
        assert play("done") == "ExecReload-1"
        assert play("done") == ":running"
        assert play.life.reload_result == "success"

    @pytest.mark.parametrize("result", FAILURES)
    def test_fails(self, result: str) -> None:
        """A reload that fails is no failure of the service."""
        play = Play(ExecReload="xx")
        play("start", "reload")
        assert play(f"done {result}") == ":running"
        assert play.end == (S.RUNNING, "success")
        assert play.life.reload_result == result
        play("reload")
        assert play.life.reload_result == "success"

    def test_impossible(self) -> None:
        """Without a way to reload there is none."""
        for kind in ("simple", "notify"):
            play = Play(kind)
            play("start", "said_ready")
            assert not play.life.can_reload()
            assert play("reload") == ""
            assert play.life.state is S.RUNNING

    def test_exited(self) -> None:
        """What remains can be reloaded by a command, but not by a signal."""
        play = Play(remains=True, ExecReload="x")
        play("start", "ends")
        assert play("reload", "done") == ":reload ExecReload-0 :exited"
        play = Play("notify-reload", remains=True)
        play("start", "said_ready", "ends")
        assert play.life.state is S.EXITED
        assert not play.life.can_reload()
        assert play("reload") == ""

    def test_by_signal(self) -> None:
        """Type=notify-reload gets a signal, and says when it begins and ends."""
        play = Play("notify-reload")
        play("start", "said_ready")
        assert play("reload") == ":reload-signal ReloadSignal"
        assert play("said_ready") == ""
        play.now += 3
        assert play("said_reloading") == ":reload-notify"
        assert play.left == 7.0  # of the time that it had
        assert play("said_ready") == ":running"
        assert play.life.reload_result == "success"

    def test_by_command_and_signal(self) -> None:
        """ExecReload= comes first."""
        play = Play("notify-reload", ExecReload="x")
        play("start", "said_ready", "reload")
        play.now += 3
        assert play("done") == ":reload-signal ReloadSignal"
        assert play.left == 10.0

    def test_command_that_makes_it_reload(self) -> None:
        """If ExecReload= has brought it about already, the signal is not needed."""
        play = Play("notify-reload", ExecReload="x")
        play("start", "said_ready", "reload", "said_reloading")
        play.now += 3
        assert play("done") == ":reload-notify"
        assert play.left == 7.0
        assert play("said_ready") == ":running"
        play("reload", "said_reloading", "said_ready")
        assert play("done") == ":running"

    def test_words_of_before(self) -> None:
        """What it said before it was told to reload does not count."""
        play = Play("notify-reload", ExecReload="x")
        play("start", "said_ready", "said_reloading", "said_ready", "reload")
        assert play("done") == ":reload-signal ReloadSignal"

    def test_notify(self) -> None:
        """Type=notify that says that it reloads while ExecReload= runs is waited for."""
        play = Play("notify", ExecReload="x")
        play("start", "said_ready", "reload")
        assert play("said_reloading") == ""
        assert play("done") == ":reload-notify"
        assert play("said_ready") == ":running"

    def test_notify_that_fails(self) -> None:
        """If ExecReload= fails, nothing is waited for."""
        play = Play("notify", ExecReload="x")
        play("start", "said_ready", "reload", "said_reloading")
        assert play("done exit-code") == ":running"

    @pytest.mark.parametrize("began", [None, 199.0])
    def test_reload_of_before(self, began: float | None) -> None:
        """A reload that began before the signal is another one."""
        play = Play("notify-reload")
        play("start", "said_ready")
        play.now = 200.0
        play("reload")
        assert not play.life.said_reloading(201.0, began=began)
        assert not play.life.said_ready(201.0)
        assert play.end == (S.RELOAD_SIGNAL, "success")
        assert words(play.life.said_reloading(202.0, began=200.0)) == ":reload-notify"

    def test_began_does_not_matter_otherwise(self) -> None:
        """A reload that nobody asked for may have begun at any time."""
        play = Play("notify")
        play("start", "said_ready")
        assert words(play.life.said_reloading(play.now, began=None)) == ":reload-notify"

    def test_both_words_at_once(self) -> None:
        """RELOADING=1 and READY=1 in one message: a reload that is over already."""
        play = Play("notify-reload")
        play("start", "said_ready", "reload")
        assert play("said_reloading", "said_ready") == ":reload-notify :running"

    def test_by_itself(self) -> None:
        """A service may reload without being told; that has TimeoutStartSec= as well."""
        play = Play()
        play("start")
        play.now += 50
        assert play("said_reloading") == ":reload-notify"
        assert play.left == 10.0
        assert play("said_reloading") == ""
        assert play("said_ready") == ":running"

    @pytest.mark.parametrize(
        "words", [["said_ready", "said_reloading"], ["said_reloading", "said_ready"]]
    )
    def test_by_itself_while_it_starts(self, words: list[str]) -> None:
        """What it says while ExecStartPost= runs counts afterwards."""
        play = Play("notify", ExecStartPost="x")
        play("start", *words)
        last = ":reload-notify" if words[-1] == "said_reloading" else ":running"
        assert play("done") == last
        assert play.has("ready")

    @pytest.mark.parametrize(
        "before", [["reload"], ["reload", "said_reloading"], ["said_reloading"]]
    )
    def test_late(self, before: list[str]) -> None:
        """A reload that takes too long is over, and the service goes on."""
        play = Play("notify-reload")
        play("start", "said_ready", *before)
        assert play.late() == ":running"
        assert play.end == (S.RUNNING, "success")
        assert play.life.reload_result == "timeout"
        assert play("said_ready") == ""

    def test_late_command(self) -> None:
        """A command that takes too long is ended, and nobody asks for its result."""
        play = Play(ExecReload="xx", ExecStop="x")
        play("start", "reload")
        assert play.late() == "KillCommand :running"
        assert play("done signal") == ""
        assert play.end == (S.RUNNING, "success")
        assert play.life.reload_result == "timeout"
        assert play("reload") == ":reload ExecReload-0"

    @pytest.mark.parametrize(
        ("what", "state", "run"),
        [("reload", "reload", "ExecReload-0"), ("stop", "stop", "ExecStop-0")],
    )
    def test_next_command_waits(self, what: str, state: str, run: str) -> None:
        """As long as the command that was ended is still there, no other is begun."""
        play = Play(ExecReload="xx", ExecStop="x")
        play("start", "reload")
        play.late()
        assert play(what) == f":{state}"
        play.now += 3
        assert play("done signal") == run
        assert play.left == (10.0 if what == "reload" else 20.0)
        assert play.life.result == "success"

    def test_command_that_stays(self) -> None:
        """A command that cannot be ended keeps nobody from stopping the service."""
        play = Play(ExecReload="x", ExecStop="x", ExecStopPost="x")
        play("start", "reload")
        assert play.late() == "KillCommand :running"
        play("reload")
        assert play.late() == "KillCommand :running"
        assert play("stop") == ":stop"
        assert play.late() == ":stop-sigterm KillSignal"
        play("ends")
        assert play.late() == ":stop-sigkill FinalKillSignal"
        assert play("done signal") == ":stop-post ExecStopPost-0"

    def test_main_that_ends_meanwhile(self) -> None:
        """A reload that is too late for a main process that has ended is a stop."""
        play = Play(ExecReload="x", ExecStop="x")
        play("start", "reload", "ends")
        assert play.late() == "KillCommand :stop"
        assert play("done signal") == "ExecStop-0"


def test_deadline_is_a_time() -> None:
    """An infinite time is none."""
    play = Play("notify", watchdog=math.inf)
    play("start", "said_ready")
    assert play.life.deadline() is None


@pytest.mark.parametrize("state", [state for state in S if state in IS_OVER])
def test_nothing_happens_after_the_end(state: Instance) -> None:
    """What comes too late changes nothing, and is no reason to do anything."""
    play = Play("notify", each=True)
    play.life.state = state
    for what in ("stop", "reload", "executed", "ends signal", "done signal", "gone", "said_ready",
                 "said_reloading", "said_stopping", "said_alive", "said_broken", "set_watchdog 1",
                 "extend 5"):  # fmt: skip
        assert play(what) == ""
        assert play.end == (state, "success")
        assert play.left is None
