"""A child process as trio sees it."""

import os
import signal
from typing import Self

import trio

__all__ = ("Child",)


class Child:
    """A process that this one has started; exactly one task waits for its end.

    trio's own `Process` starts programs from a thread. A signal for the starter's death
    (PR_SET_PDEATHSIG) would then arrive when that thread ends, so children are started elsewhere.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.has_ended = False
        self._descriptor: int | None = None
        try:
            self._descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):
            # Linux before 5.3 (AWS's 4.14 enclave kernel), or a Python built on one.
            self._descriptor = None

    async def wait(self) -> int:
        """Wait until the process has ended, and return its wait status (as of waitpid)."""
        if self._descriptor is not None:
            await trio.lowlevel.wait_readable(self._descriptor)
        else:
            await trio.to_thread.run_sync(
                os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT, abandon_on_cancel=True
            )
        _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222 — it has ended, so this is at once
        self.has_ended = True
        self.close()
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended: its number may be another's by now."""
        if not self.has_ended:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Stop watching the process; it is not ended by this."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
