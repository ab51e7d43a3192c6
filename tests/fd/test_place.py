"""sockact.fd.place."""

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.fd.place import SPARE, plan_moves
from tests.helpers import clean_environ


def _carry_out(moves: list[tuple[int, int]], numbers: dict[int, str]) -> dict[int, str]:
    table = dict(numbers)
    for source, target in moves:
        table[target] = table[source]
    return table


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(0, 8))
def test_plan_brings_every_source_to_its_number(sources: list[int], base: int) -> None:
    """Whatever the numbers are, and whichever occur twice, each target gets what it should."""
    held = {number: f"file {number}" for number in range(60)}
    after = _carry_out(plan_moves(sources, base), held)
    assert [after[base + i] for i in range(len(sources))] == [held[s] for s in sources]


@given(st.permutations(range(3, 20)))
def test_plan_for_a_permutation_needs_one_spare_a_cycle(sources: list[int]) -> None:
    """A permutation is done with one move for each number out of place, and one for each cycle."""
    moves = plan_moves(sources, 3)
    cycles = sum(1 for _, target in moves if target == SPARE)
    displaced = sum(1 for i, source in enumerate(sources, 3) if source != i)
    assert len(moves) == displaced + cycles
    assert cycles <= displaced // 2


def test_plan_in_place_is_empty() -> None:
    """Descriptors that are where they belong are not moved."""
    assert plan_moves(range(3, 1000), 3) == []


def test_plan_is_linear() -> None:
    """Ten thousand descriptors in pairs that change places take no more moves than needed."""
    sources = [number ^ 1 for number in range(10_000)]
    assert len(plan_moves(sources, 0)) == 15_000


@pytest.mark.parametrize("seed", range(5))
def test_place_moves_real_descriptors(seed: int) -> None:
    """Files at shuffled numbers, some twice, arrive in order; they alone are inheritable."""
    order = [*random.Random(seed).sample(range(3, 23), 20), 5, 5, 7]
    code = f"""
import os
from sockact.fd.place import close_on_exec_from, place
order = {order}
made = {{}}
for number in range(3, 23):
    path = os.memfd_create(str(number))
    os.dup2(path, 100 + number); os.close(path)
for number in range(3, 23):
    os.dup2(100 + number, number, inheritable=number % 2 == 0); os.close(100 + number)
place(order)
close_on_exec_from(3 + len(order))
for i in range(len(order)):
    assert os.readlink(f"/proc/self/fd/{{3 + i}}").startswith(f"/memfd:{{order[i]}} ")
    assert os.get_inheritable(3 + i)
assert all(
    not os.get_inheritable(int(n)) for n in os.listdir("/proc/self/fd")
    if int(n) >= 3 + len(order) and os.path.exists(f"/proc/self/fd/{{n}}")
)
print("ok")
"""
    shown = subprocess.check_output([sys.executable, "-c", code], env=clean_environ(), text=True)
    assert shown == "ok\n"


def test_place_works_near_the_limit() -> None:
    """Nearly all of the allowed descriptors can be placed: it does not take twice as many."""
    code = """
import os, resource
from sockact.fd.place import place
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
sources = []
while True:
    try: sources.append(os.open(os.devnull, os.O_RDONLY))
    except OSError: break
os.close(sources.pop())
place(sources[::-1])
print(len(sources))
"""
    shown = subprocess.check_output([sys.executable, "-c", code], env=clean_environ(), text=True)
    assert int(shown) == 196


def test_fill_stdio_opens_what_is_closed() -> None:
    """Closed standard descriptors are opened on /dev/null, and open ones left alone."""
    code = """
import os
from sockact.fd.place import fill_stdio
os.close(0); os.close(2)
fill_stdio()
print(*(os.readlink(f"/proc/self/fd/{n}") for n in (0, 2)), os.get_inheritable(0),
      len(os.listdir("/proc/self/fd")))
"""
    shown = subprocess.check_output([sys.executable, "-c", code], env=clean_environ(), text=True)
    assert shown == "/dev/null /dev/null True 4\n"
