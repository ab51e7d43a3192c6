"""python-systemd's own tests of its ``daemon`` module, run on sockact's with only the import changed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, clean_environ


def test_their_tests_pass(tmp_path: Path) -> None:
    """Every name, argument, result and exception is as programs expect it."""
    spec = importlib.util.find_spec("systemd")
    places = list(spec.submodule_search_locations or ()) if spec else []
    theirs = [path for place in places if (path := Path(place, "test", "test_daemon.py")).exists()]
    if not theirs:
        pytest.skip("python-systemd is not installed; pip install --group peers")
    text = theirs[0].read_text(encoding="utf-8")
    assert text.count("from systemd.daemon import") == 1
    changed = tmp_path / "test_theirs.py"
    changed.write_text(
        text.replace("from systemd.daemon import", "from sockact.daemon import"), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}",
         str(changed)],
        cwd=tmp_path, env=clean_environ({"PYTHONPATH": str(ROOT)}), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
