"""How a process has ended, and what systemd says about it.

Source: systemd's src/shared/exit-status.c and the table in systemd.exec(5), "Process Exit Codes".
"""

import signal
from collections.abc import Collection
from typing import Final

import attrs

from sockact.spec import AsValue
from sockact.unitfile.signals import signal_name

STATUSES: Final = {
    0: "SUCCESS", 1: "FAILURE",
    2: "INVALIDARGUMENT", 3: "NOTIMPLEMENTED", 4: "NOPERMISSION", 5: "NOTINSTALLED",
    6: "NOTCONFIGURED", 7: "NOTRUNNING",
    64: "USAGE", 65: "DATAERR", 66: "NOINPUT", 67: "NOUSER", 68: "NOHOST", 69: "UNAVAILABLE",
    70: "SOFTWARE", 71: "OSERR", 72: "OSFILE", 73: "CANTCREAT", 74: "IOERR", 75: "TEMPFAIL",
    76: "PROTOCOL", 77: "NOPERM", 78: "CONFIG",
    200: "CHDIR", 201: "NICE", 202: "FDS", 203: "EXEC", 204: "MEMORY", 205: "LIMITS",
    206: "OOM_ADJUST", 207: "SIGNAL_MASK", 208: "STDIN", 209: "STDOUT", 210: "CHROOT",
    211: "IOPRIO", 212: "TIMERSLACK", 213: "SECUREBITS", 214: "SETSCHEDULER", 215: "CPUAFFINITY",
    216: "GROUP", 217: "USER", 218: "CAPABILITIES", 219: "CGROUP", 220: "SETSID", 221: "CONFIRM",
    222: "STDERR", 224: "PAM", 225: "NETWORK", 226: "NAMESPACE", 227: "NO_NEW_PRIVILEGES",
    228: "SECCOMP", 229: "SELINUX_CONTEXT", 230: "PERSONALITY", 231: "APPARMOR",
    232: "ADDRESS_FAMILIES", 233: "RUNTIME_DIRECTORY", 235: "CHOWN", 236: "SMACK_PROCESS_LABEL",
    237: "KEYRING", 238: "STATE_DIRECTORY", 239: "CACHE_DIRECTORY", 240: "LOGS_DIRECTORY",
    241: "CONFIGURATION_DIRECTORY", 242: "NUMA_POLICY", 243: "CREDENTIALS", 244: "BPF",
    245: "KSM", 255: "EXCEPTION",
}  # fmt: skip
"""The names of exit statuses: libc's, LSB's, sysexits.h's, and systemd's own from 200 on."""

_CLEAN_SIGNALS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE})


@attrs.frozen(eq=False, repr=False)
class Exit(AsValue):
    """How a process has ended.

    Attributes:
        status: What it gave exit(3), 0 to 255; 0 if a signal killed it.
        signal: The signal that killed it; 0 if none did.
        core: Whether it was killed with a core dump, as far as the kernel made one.
    """

    status: int
    signal: int = 0
    core: bool = False

    @classmethod
    def of(cls, status: int) -> "Exit":
        """Read the status that wait(2) gives of a process that has ended."""
        number = status & 0x7F
        return cls(0 if number else status >> 8 & 0xFF, number, bool(number and status & 0x80))

    @property
    def code(self) -> str:
        """What systemd calls the kind of end, also in $EXIT_CODE: exited, killed or dumped."""
        return "dumped" if self.core else "killed" if self.signal else "exited"

    @property
    def status_text(self) -> str:
        """What systemd puts in $EXIT_STATUS: the number, or the signal's name without SIG."""
        return _name(self.signal) if self.signal else str(self.status)

    @property
    def shell_status(self) -> int:
        """What a shell makes of it: the status, or 128 and the signal's number."""
        return 128 + self.signal if self.signal else self.status

    def is_clean(self, success: Collection[tuple[str, int]] = (), *, oneshot: bool = False) -> bool:
        """Whether systemd calls that a success.

        Args:
            success: SuccessExitStatus=: ("exit", status) and ("signal", number).
            oneshot: Whether the process is one that was to end by itself, of a Type=oneshot
                service or another command than ExecStart=: then a signal is none of the clean
                ways to end.

        Source: ``is_clean_exit()`` in systemd's src/shared/exit-status.c.
        """
        if self.core:
            return False
        if self.signal:
            clean = not oneshot and self.signal in _CLEAN_SIGNALS
            return clean or ("signal", self.signal) in success
        return self.status == 0 or ("exit", self.status) in success

    def __str__(self) -> str:
        if self.signal:
            return f"code={self.code}, signal={_name(self.signal)}"
        name = STATUSES.get(self.status)
        return f"code=exited, status={self.status}" + (f"/{name}" if name else "")


def _name(number: int) -> str:
    return signal_name(number).removeprefix("SIG")
