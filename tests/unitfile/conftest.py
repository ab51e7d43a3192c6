"""Fixtures for tests of unit files."""

from pathlib import Path

import pytest


@pytest.fixture
def a(tmp_path: Path) -> Path:
    """Give the first directory of a search path."""
    return tmp_path / "a"


@pytest.fixture
def b(tmp_path: Path) -> Path:
    """Give the second."""
    return tmp_path / "b"
