"""Which signals are passed on to the user's command, and where one came from.

Everything of ours that stands above the command shares the command's process group, so that the
terminal works for it as if we were not there: job control, Ctrl-C, a shell with its own jobs. What
the terminal sends thus reaches the command by itself, and must not be passed on a second time.
"""

import os
import signal
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Self

__all__ = ("ENDING", "PASSED_ON", "Received", "SignalDescriptor", "is_for_whole_group")

ENDING: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
"""Signals that end a program unless it handles them."""

PASSED_ON: Final = ENDING | {signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}

_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
"""Not SIGHUP: on a hang-up the kernel sends it to the session's leader only
(drivers/tty/tty_jobctrl.c, tty_signal_session_leader)."""
_SI_KERNEL: Final = 0x80  # include/uapi/asm-generic/siginfo.h; a program cannot set it

# struct signalfd_siginfo of signalfd(2): 128 bytes that begin with signo, errno and code.
_RECORD: Final = struct.Struct("=Iii116x")
_RECORDS_AT_ONCE: Final = 16
_SIGNAL_SET_BYTES: Final = 128
_SFD_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Received:
    """A signal, and whether it went to the whole process group."""

    number: signal.Signals
    for_whole_group: bool


def is_for_whole_group(number: int, code: int) -> bool:
    """Whether the terminal sent signal `number`; `code` is siginfo's si_code."""
    return code == _SI_KERNEL and number in _FROM_TERMINAL


class SignalDescriptor:
    """Blocked signals as a readable descriptor (signalfd): unlike a handler, it tells the sender.

    Args:
        numbers: the signals; they are blocked in this thread, and stay blocked.

    Raises:
        OSError: no descriptor could be had.
    """

    def __init__(self, numbers: Collection[signal.Signals]) -> None:
        import ctypes  # PID 1 imports this module too, and stays small

        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        bits = sum(1 << (number - 1) for number in numbers)
        libc = ctypes.CDLL(None, use_errno=True)
        mask = bits.to_bytes(_SIGNAL_SET_BYTES, "little")
        self._descriptor: int = libc.signalfd(-1, mask, _SFD_FLAGS)
        if self._descriptor < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def fileno(self) -> int:
        """The descriptor, for a loop to wait on."""
        return self._descriptor

    def read(self) -> list[Received]:
        """Take what has arrived; nothing is an empty list."""
        try:
            data = os.read(self._descriptor, _RECORDS_AT_ONCE * _RECORD.size)
        except BlockingIOError:
            return []
        return [
            Received(signal.Signals(number), is_for_whole_group(number, code))
            for number, _, code in _RECORD.iter_unpack(data)
        ]

    def close(self) -> None:
        """Close the descriptor; the signals stay blocked."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
