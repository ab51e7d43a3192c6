"""Every exception that sockact raises on purpose, named by whose fault it was.

Each class also derives from the builtin that fits, so that code which knows nothing of sockact
(``except ValueError``, ``except OSError``) still catches it. Fields carry what a program wants to
look at; ``str()`` is the one line that a person wants to read. This module imports nothing.
"""


class SockactError(Exception):
    """The root of the tree; never raised itself."""


class SockactWarning(UserWarning):
    """Something in a definition was ignored, or an option could not be set; work went on."""


class UnitError(SockactError, ValueError):
    """A socket unit cannot be used.

    Attributes:
        message: What is wrong, without the place.
        path: The file (or ``--listen`` text) it stands in.
        line: 1-based line, 0 if the whole file is meant.
        column: 1-based column in characters, 0 if the whole line is meant.
        diagnostics: What had been ignored up to there, each a `sockact.spec.Diagnostic`; often the
            reason.
    """

    diagnostics: tuple[object, ...] = ()

    def __init__(self, message: str, path: str, line: int = 0, column: int = 0) -> None:
        self.message = message
        self.path = path
        self.line = line
        self.column = column
        place = path + (f":{line}" if line else "") + (f":{column}" if line and column else "")
        super().__init__(f"{place}: {message}")


class UnitSyntaxError(UnitError):
    """The file breaks the grammar in a way that makes systemd refuse the whole file."""


class DirectiveError(UnitError):
    """A known directive has a value, or a combination of values, that makes the unit refused."""


class UnitNotFoundError(UnitError, FileNotFoundError):
    """No such unit on the search path, or it is masked, or it cannot be read."""


class ListenTextError(SockactError, ValueError):
    """A ``--listen`` text is wrong.

    Attributes:
        message: What is wrong, and what to write instead.
        text: The whole text.
        start: Index in ``text`` of the first character that is wrong.
        end: Index behind the last one.
    """

    def __init__(self, message: str, text: str, start: int, end: int) -> None:
        self.message = message
        self.text = text
        self.start = start
        self.end = end
        part = text[start:end]
        at = f" at {part!r} (character {start + 1})" if part and part != text else ""
        super().__init__(f"{text!r}{at}: {message}")


class BindError(SockactError, OSError):
    """A listener could not be opened; everything opened with it has been undone.

    Attributes:
        listener: The listener, as a person wrote it.
        step: The system call or other step that failed (``bind``, ``mkfifo``, ``getaddrinfo``).
        errno: The error number, or 0 where the kernel was not asked.
        hint: What to do about it; may be empty.
    """

    def __init__(self, listener: str, step: str, errno: int, reason: str, hint: str = "") -> None:
        super().__init__(errno, reason)
        self.listener = listener
        self.step = step
        self.hint = hint

    def __str__(self) -> str:
        text = f"cannot open {self.listener}: {self.step}: {self.strerror}"
        return f"{text}; {self.hint}" if self.hint else text


class EnvironError(SockactError, ValueError):
    """LISTEN_* variables that are meant for this process are malformed or untrue.

    Attributes:
        variable: The variable that is wrong.
        fd: The descriptor that is not open, if that is what is wrong; else -1.
    """

    def __init__(self, variable: str, message: str, fd: int = -1) -> None:
        self.variable = variable
        self.fd = fd
        super().__init__(f"{variable}: {message}")


class FdStateError(SockactError, RuntimeError):
    """A descriptor was used after it had been closed or given away."""


class SocketLookupError(SockactError, LookupError):
    """A socket set has no socket, or more than one, under the name asked for."""


class LaunchError(SockactError, OSError):
    """A program could not be started; the sockets opened for it have been undone.

    Attributes:
        program: What was to be started.
        errno: Why not, as a number.
        step: At what it failed: ``exec``, ``directory``, ``user``, ``limits`` …
        status: With what status a process ends that failed at that step (systemd.exec(5)).
    """

    step = "exec"
    status = 203

    def __init__(
        self, program: str, errno: int, reason: str, step: str = "", status: int = 0
    ) -> None:
        super().__init__(errno, reason)
        self.program = program
        if step:
            self.step, self.status = step, status

    def __str__(self) -> str:
        return f"cannot run {self.program}: {self.strerror}"


class WorkingDirectoryError(LaunchError):
    """The directory in which a program was to run cannot be entered; `program` is its path."""

    step = "directory"
    status = 200

    def __str__(self) -> str:
        return f"cannot change to the directory {self.program}: {self.strerror}"


class CredentialsError(SockactError, LookupError):
    """A user or group that was asked for does not exist."""


class SubstitutionError(SockactError, ValueError):
    """A ``{fd:NAME}`` in a command names no socket, or several, or has no such property."""


class NotifyError(SockactError, OSError):
    """The service manager could not be notified, or did not answer in time."""

    def __str__(self) -> str:
        return str(self.strerror)


class RendezvousError(SockactError, OSError):
    """Something at a rendezvous failed.

    Attributes:
        errno: The error number, or 0 where the kernel did not say no.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(errno, message)

    def __str__(self) -> str:
        return str(self.strerror)


class TruncatedError(RendezvousError):
    """A message lost descriptors or bytes on its way, as the kernel reports it.

    What had come of it has been closed.
    """


class LocalProtocolError(RendezvousError):
    """This side asked its end of the rendezvous protocol for something that is not its turn."""


class RemoteProtocolError(RendezvousError):
    """The peer broke the rendezvous protocol: its fault, or it speaks another one."""


class OwnerNotFoundError(RendezvousError):
    """Nobody answers at the rendezvous path."""


class UntrustedOwnerError(RendezvousError):
    """Whoever listens at the rendezvous path is a user that is not to be believed."""


class RefusedError(RendezvousError):
    """The owner, or the receiver, said no; nothing has changed.

    Attributes:
        reason: Why, as sockact-rendezvous(7) lists it: ``busy``, ``denied``, ``unknown-name`` …
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class TakeoverAbortedError(RendezvousError):
    """A takeover was broken off before its commit; whoever served before goes on serving."""


class PathInUseError(RendezvousError):
    """The rendezvous path cannot be used: somebody owns it, or something else stands there."""
