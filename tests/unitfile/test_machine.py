"""sockact.unitfile.machine: what the specifiers mean that depend on machine and user."""

import os

from sockact.unitfile.machine import machine_specifiers


def test_machine_specifiers() -> None:
    """Each letter means what systemd.unit(5) says, for the system and for a user."""
    system = machine_specifiers({"HOME": "/root"}, user=False)
    assert [system(x) for x in "tSCLET"] == [
        "/run", "/var/lib", "/var/cache", "/var/log", "/etc", "/tmp",
    ]  # fmt: skip
    user = machine_specifiers({"HOME": "/h", "XDG_RUNTIME_DIR": "/r", "TMPDIR": "/t"}, user=True)
    assert [user(x) for x in "tSCETV"] == [
        "/r", "/h/.local/state", "/h/.cache", "/h/.config", "/t", "/t",
    ]  # fmt: skip
    assert system("U") == str(os.getuid())
    assert system("H") == os.uname().nodename
    assert system("v") == os.uname().release
    assert system("a")
    assert system("z") is None
    for letter in "uhsgGlqbowWBMA":
        assert system(letter) is not None
