"""Fixtures for tests of the rendezvous."""

from pathlib import Path

import pytest


@pytest.fixture
def path(short_dir: Path) -> str:
    """Give the path of a rendezvous, where nobody is yet."""
    return str(short_dir / "r")
