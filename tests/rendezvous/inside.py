"""Actors in other namespaces."""

import subprocess
import sys
from collections.abc import Sequence

from tests.helpers import ROOT, clean_environ
from tests.rendezvous.peers import _ACTOR, Actor


class Inside(Actor):
    """An actor that is started by a command which changes the namespaces."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it.

        Args:
            command: What runs the arguments behind it elsewhere, such as nsenter or unshare.
        """
        run = [
            sys.executable,
            "-c",
            _ACTOR.replace("for line", f"os.chdir({str(ROOT)!r})\nfor line"),
            "0",
            "",
        ]
        self._process = subprocess.Popen(
            [*command, *run],
            cwd=ROOT,
            env=clean_environ({"PYTHONPATH": str(ROOT)}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
