"""A new process that runs in this one's memory until it executes a program, by calls of libc alone.

To fork is to copy: the more memory, the longer it takes. vfork(2), which posix_spawn(3) is made of,
copies nothing: the new process has the memory of the old one, which waits until it is left. Python
must not run there, as all that it did would have happened here. So what is to be done is written
down first, as calls of libc, and libc goes through them by itself: each call is a context of
makecontext(3) with the next one as its successor, and all that the new process is told is to
setcontext(3) the first.

A call can neither be skipped nor judged by the next one. So only such calls are made as cannot
fail, and the last one executes the program.

Source: clone(2), vfork(2), makecontext(3), getcontext(3).
"""

import errno
import functools
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sockact.activation.libc import MISSING, address_of, last_error, libc

# uapi/linux/sched.h
_CLONE_VM, _CLONE_VFORK, _CLONE_CHILD_SETTID = 0x100, 0x4000, 0x1000000
_FLAGS = _CLONE_VM | _CLONE_VFORK | _CLONE_CHILD_SETTID | signal.SIGCHLD

_MOST = 40
"""How many calls there is room for."""
_REGISTERS = 6
"""How many arguments a call has at most: on no architecture is any of them on the stack."""
_CONTEXT = 5120  # bytes: an ucontext_t, of which aarch64 has the largest
_STACK = 32768  # bytes that a call may use, sprintf() being the hungriest
_TOP = 128  # bytes above that which makecontext() uses
_ENTRY = 8192  # bytes for setcontext()
_HEAD = struct.Struct("PPPiN")
"""How an ucontext_t begins: flags, its successor, its stack: address, flags, size."""
_WORD = struct.Struct("Q")
_MASK = 128  # bytes: a sigset_t


_NOT_NOW = (errno.EAGAIN, errno.ENOMEM)


class At(NamedTuple):
    """An argument: the 64-bit number that stands at this address when it is the call's turn."""

    address: int


Call = tuple[str | int | At, ...]
"""The name of a function of libc, and its arguments: numbers and addresses."""


class Late(tuple[str | int | At, ...]):
    """A call with arguments that are `At`."""

    __slots__ = ()


class Chain:
    """The contexts of all new processes, which begin one after the other: it is for one thread.

    Attributes:
        pid: The process id of the new process, as an argument.
    """

    def __init__(self, library: Any) -> None:
        """Make the contexts.

        Args:
            library: `libc`.

        Raises:
            AttributeError: It does not have them, as musl.
        """
        import ctypes  # noqa: PLC0415 - slow to import

        def function(name: str, *kinds: Any) -> Callable[..., int]:
            found: Any = library[name]  # each time another object
            found.argtypes = kinds
            return found  # type: ignore[no-any-return]

        number, word, pointer = ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p
        self._make = [
            function("makecontext", pointer, pointer, number, *[word] * count)
            for count in range(_REGISTERS + 1)
        ]
        self._clone = function("clone", pointer, pointer, number, *[pointer] * 4)
        self._set_mask = function("sigprocmask", number, pointer, pointer)
        self._address = functools.cache(lambda name: ctypes.cast(library[name], pointer).value)
        # All calls share one stack, each below its own top. There it finds the tops of those only
        # that were called before it.
        tops = _STACK
        contexts = tops + _MOST * _TOP
        entry = contexts + _MOST * _CONTEXT + _ENTRY
        end = entry + _WORD.size + 1 + 3 * _MASK
        self._memory = mmap.mmap(-1, end, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._tops = slice(tops, contexts)
        self._contexts = [self._start + contexts + n * _CONTEXT for n in range(_MOST)]
        self._entry = self._start + entry
        self.pid = At(self._entry)
        self._failed = entry + _WORD.size
        self._every, self._none, self._before = (
            self._start + self._failed + 1 + n * _MASK for n in range(3)
        )
        self._memory[self._failed + 1 : self._failed + 1 + _MASK] = b"\xff" * _MASK
        self._prepared: list[Call] = [()] * _MOST
        self._placed: tuple[tuple[Call, ...], int] = (), 0
        self._link(function("getcontext", pointer))
        self._registers = self._find_registers()
        self._prepare(_MOST - 2, ("memset", self._start + self._failed, 1, 1))
        self._prepare(_MOST - 1, ("_exit", errno.ENOEXEC))

    def _link(self, get: Callable[..., int]) -> None:
        """Make each context the successor of the one before it.

        Signals are blocked until the program is executed: the handlers here are not for the new
        process. What comes then ends it, or is handled by the program.
        """
        self._set_mask(signal.SIG_BLOCK, self._every, self._before)
        for n, context in enumerate(self._contexts):
            if n == _MOST - 3:
                self._set_mask(signal.SIG_SETMASK, self._none, None)
            get(context)
            after = self._contexts[n + 1] if n + 1 < _MOST else 0
            stack = self._start + (n + 1) * _TOP
            _HEAD.pack_into(self._memory, context - self._start, 0, after, stack, 0, _STACK)
        self._set_mask(signal.SIG_SETMASK, self._before, None)

    def _find_registers(self) -> list[int]:
        """Return where in a context its arguments are kept, which differs between architectures.

        Raises:
            ValueError: They are not found.
        """
        marks = [0x5A5A_0000_A5A5_0000 + n for n in range(_REGISTERS)]
        self._prepare(0, ("memset", *marks))
        start = self._contexts[0] - self._start
        context = self._memory[start : start + _CONTEXT]
        return [context.index(_WORD.pack(mark)) for mark in marks]

    def _prepare(self, n: int, call: Call) -> None:
        """Have a context make a call."""
        name, *given = call
        arguments = [0 if isinstance(one, At) else one for one in given]
        make = self._make[len(arguments)]
        make(self._contexts[n], self._address(name), len(arguments), *arguments)
        self._prepared[n] = call

    def run(self, calls: Sequence[Call]) -> int:
        """Start a process that makes the calls.

        Returns:
            Its process id; 0 if the last call has failed, and then there is no process any more.

        Raises:
            OSError: There can be no process (EAGAIN, ENOMEM).
            ValueError: There are too many calls.
        """
        calls = tuple(calls)
        if calls != self._placed[0]:
            self._placed = calls, self._place(calls)
        pid = self._start_at(self._placed[1])
        if not self._memory[self._failed]:
            return pid
        self._memory[self._failed] = 0
        os.waitpid(pid, 0)
        return 0

    def _place(self, calls: Sequence[Call]) -> int:
        """Prepare the calls, so that the last one comes before those of a failure; return where."""
        placed: list[Call] = []
        last = _MOST - 3
        for call in reversed(calls):
            context = last - len(placed)
            placed.append(call)
            if type(call) is Late:
                for at, one in enumerate(call, -1):
                    if isinstance(one, At):
                        register = self._contexts[context] + self._registers[at]
                        placed.append(("memcpy", register, one.address, _WORD.size))
        if len(placed) > last + 1:
            raise ValueError("too many calls")
        for n, call in zip(range(last, -1, -1), placed, strict=False):
            if self._prepared[n] != call:
                self._prepare(n, call)
        return last + 1 - len(placed)

    def _start_at(self, first: int) -> int:
        tops = self._memory[self._tops]
        set_context = self._address("setcontext")
        own = self.pid.address
        self._set_mask(signal.SIG_BLOCK, self._every, self._before)
        try:
            context = self._contexts[first]
            pid = self._clone(set_context, self._entry, _FLAGS, context, None, None, own)
        finally:
            self._set_mask(signal.SIG_SETMASK, self._before, None)
            self._memory[self._tops] = tops  # a context does not survive its call
        if pid < 0:
            raise last_error()
        return pid

    def works(self) -> bool:
        """Whether a process does what it is told."""
        text, form = bytearray(32), bytearray(b"%d\0")
        told = Late(("sprintf", address_of(text), address_of(form), self.pid))
        pid = self.run([told, ("_exit", errno.EDOM)])
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return status == errno.EDOM and text.startswith(b"%d\0" % pid)


@functools.cache
def chain() -> Chain | None:
    """Return the contexts, or None if this system does not have them.

    Raises:
        OSError: There can be no process now (EAGAIN, ENOMEM).

    They have been seen to work: they are used in a way that no standard speaks of.
    """
    library = libc()
    is_usual = sys.byteorder == "little" and struct.calcsize("P") == _WORD.size
    if library is None or not is_usual or _has_shadow_stack():
        return None
    try:
        found = Chain(library)
        return found if _works_in_a_copy(found) else None
    except (AttributeError, ValueError):
        return None
    except OSError as error:
        if error.errno in (*MISSING, errno.ECHILD):
            return None
        raise


def _works_in_a_copy(found: Chain) -> bool:
    """Whether it works, found out in a fork of this process, where nothing is lost if not.

    Raises:
        OSError: There can be no process now (EAGAIN, ENOMEM).
    """
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = 0 if found.works() else 1
        except OSError as error:
            status = error.errno if error.errno in _NOT_NOW else 1
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in _NOT_NOW:
        raise OSError(code, os.strerror(code))
    return code == 0


def _has_shadow_stack() -> bool:
    """Whether each makecontext() would have to allocate a second stack, which is never freed.

    Source: Documentation/arch/x86/shstk.rst of Linux.
    """
    try:
        with open("/proc/self/status", "rb") as file:
            return b"shstk" in file.read()
    except OSError:
        return False
