"""A short run of the fuzzer with a fixed seed; ``make fuzz`` runs it for longer."""

import random

import pytest

from tests.fuzz.unitfile import CORPUS, SHAPES, fuzz_one, mutate


@pytest.mark.parametrize("data", CORPUS)
def test_corpus(data: bytes) -> None:
    """Each seed of the corpus is read."""
    fuzz_one(data)


def test_mutations() -> None:
    """Three thousand mutations raise nothing but the readers' own errors."""
    chance = random.Random(252)
    for _ in range(3000):
        fuzz_one(mutate(chance.choice(CORPUS), chance))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    """The shapes that are measured for growth are read at all."""
    fuzz_one(SHAPES[name](500))
