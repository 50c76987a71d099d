"""PID 1: starts the supervisor, reaps whatever is orphaned, passes signals on. Nothing else.

The supervisor cannot do this itself: `waitpid(-1)` beside a loop that waits for its own children
takes their statuses away from it. Imports the standard library only, and stays small: it lives as
long as the enclave.

    python -m enclave_side.init AT-END COMMAND ARG...

AT-END is `exit`, or what a machine does when the command has ended: `reboot` or `power_off`. In a
container PID 1 exits all the same, since a status is asked for.
"""

import os
import signal
import sys
from collections.abc import Collection, Sequence

from vsockproxy import processes
from vsockproxy.signals import PASSED_ON, is_for_whole_group

__all__ = ("EXIT", "block_signals", "main", "run", "wait_for_child")

EXIT = "exit"

# include/uapi/linux/reboot.h
_REBOOT_COMMANDS = {"reboot": 0x0123_4567, "power_off": 0x4321_FEDC}

_INIT = 1

_AWAITED = PASSED_ON | {signal.SIGCHLD}


def block_signals() -> None:
    """Keep the signals that `wait_for_child` takes until it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)


def run(command: Sequence[str], passed: Collection[int] = ()) -> int:
    """Be PID 1 for `command`, which gets the descriptors `passed`; the exit code, its own.

    When PID 1 exits, the kernel ends everything else in its namespace; that is wanted.

    Raises:
        OSError: the command cannot be started, or this process could be traced by it.
    """
    processes.forbid_tracing()
    block_signals()
    # The supervisor blocks these signals too, and finds what arrived before it did.
    child = processes.start(command, passed=passed, keeps_signal_mask=True)
    ended, status = wait_for_child(child, {child})
    assert ended == child
    return processes.exit_code(status)


def wait_for_child(signalled: int, awaited: Collection[int]) -> tuple[int, int]:
    """Wait until one of the `awaited` children ends; its process id and wait status.

    Meanwhile every other child that ends is reaped, and signals are passed on to `signalled`.
    """
    while True:
        received = signal.sigwaitinfo(_AWAITED)
        if received.si_signo != signal.SIGCHLD:
            # The child has been reaped only if this function has returned.
            if not is_for_whole_group(received.si_signo, received.si_code):
                os.kill(signalled, received.si_signo)
            continue
        # One SIGCHLD may stand for many children.
        for pid, status in iter(_reap, None):
            if pid in awaited:
                return pid, status


def _reap() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _end_machine(at_end: str) -> None:
    """End the machine; returns only where there is none to be ended, or the kernel refuses."""
    if at_end == EXIT or os.getpid() != _INIT or not processes.is_init_of_machine():
        return
    import ctypes  # needed once, at the end

    os.sync()
    ctypes.CDLL(None).reboot(_REBOOT_COMMANDS[at_end])


def main() -> None:
    """Run the command in `sys.argv`; what the supervisor inherits is inherited through here."""
    at_end, *command = sys.argv[1:]
    code = run(command)
    _end_machine(at_end)
    sys.exit(code)


if __name__ == "__main__":
    main()
