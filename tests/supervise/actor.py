"""A program that does what it is told, one step after the other.

Run as ``actor.py MARK STEPS``; it makes the file MARK once it listens for signals. The steps are
separated by semicolons: ``on NAME …`` is a step that is taken when that signal comes.
"""

import os
import signal
import socket
import sys
import time


def take(step: str) -> None:
    """Take one step."""
    verb, _, rest = step.partition(" ")
    if verb == "exit":
        os._exit(int(rest))
    elif verb == "kill":
        os.kill(os.getpid(), signal.Signals[f"SIG{rest}"])
    elif verb == "sleep":
        time.sleep(float(rest))
    elif verb == "say":
        address = os.environ["NOTIFY_SOCKET"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(rest.replace(" ", "\n").encode(), address.replace("@", "\0", 1))
    elif verb == "forever":
        while True:
            signal.pause()


def handle(name: str, step: str) -> None:
    """Take a step when a signal comes."""
    signal.signal(signal.Signals[f"SIG{name}"], lambda _number, _frame: take(step))


def main(mark: str, text: str) -> None:
    """Take all steps."""
    steps = [step.strip() for step in text.split(";")]
    for step in steps:
        verb, _, rest = step.partition(" ")
        if verb == "on":
            name, _, what = rest.partition(" ")
            handle(name, what)
    os.close(os.open(mark, os.O_CREAT | os.O_WRONLY, 0o644))
    for step in steps:
        take(step)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
