"""What the benchmarks share: timing commands in turn, and printing JSON."""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence


def environ() -> dict[str, str]:
    """Return the environment in which both sides run: compiled modules may be cached."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME", "NOTIFY_SOCKET")
    return {key: value for key, value in os.environ.items() if key not in dropped}


def command_seconds(command: Sequence[str]) -> float:
    """Run a command to its end and return the seconds it took."""
    begin = time.perf_counter()
    subprocess.run(command, env=environ(), stdin=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def in_turn(
    sides: Mapping[str, Callable[[], float]], rounds: int, floor: str
) -> dict[str, dict[str, float]]:
    """Time each side once a round, after one round that does not count.

    Returns:
        For each side its median in milliseconds, and the median of its ratio to `floor` in the
        same round, so that a machine whose speed drifts does not matter.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            spent = side()
            if number:
                seconds[name].append(spent)
    return {
        name: {
            "median_ms": round(statistics.median(times) * 1e3, 3),
            "ratio": round(
                statistics.median(a / b for a, b in zip(times, seconds[floor], strict=True)), 3
            ),
        }
        for name, times in seconds.items()
    }


def show(result: Mapping[str, object]) -> None:
    """Print a result as JSON."""
    print(json.dumps(result, indent=2))
