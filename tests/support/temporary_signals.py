"""Signals for one test: what the code under test blocks or takes is given back."""

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager


@contextmanager
def unchanged_signal_mask() -> Iterator[None]:
    """Restore the signal mask, after taking whatever still waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        take_pending(signal.sigpending())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_pending(numbers: Collection[int]) -> None:
    for number in numbers:
        signal.sigtimedwait({number}, 0)
