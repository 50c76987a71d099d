"""A command that tries to get into the processes of ours that stand around it.

    python -m tests.support.intruder

Prints JSON: for `supervisor`, `init` (PID 1, if it is one of ours), `worker` and `child`, what each
attempt came to, as the name of an errno or "done". A child of its own shows that the attempts are
such as succeed.
"""

import ctypes
import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # include/uapi/asm-generic/unistd.h
_PTRACE_SEIZE, _PTRACE_DETACH = 0x4206, 17  # include/uapi/linux/ptrace.h
_SOME_ADDRESS = 0x1000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def open_file(name: str, flags: int = os.O_RDONLY) -> Callable[[int], None]:
    def attempt(pid: int) -> None:
        descriptor = os.open(f"/proc/{pid}/{name}", flags)
        os.close(descriptor)

    return attempt


def trace(pid: int) -> None:
    check(_libc.ptrace(_PTRACE_SEIZE, pid, None, None))


def take_descriptor(pid: int) -> None:
    process = check(_libc.syscall(_PIDFD_OPEN, pid, 0))
    try:
        os.close(check(_libc.syscall(_PIDFD_GETFD, process, 0, 0)))
    finally:
        os.close(process)


def read_memory(pid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    ours = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), len(buffer))
    theirs = (ctypes.c_uint64 * 2)(_SOME_ADDRESS, len(buffer))
    try:
        check(_libc.process_vm_readv(pid, ours, 1, theirs, 1, 0))
    except OSError as error:
        if error.errno != errno.EFAULT:  # which is not asked before the right to ask is
            raise


ATTEMPTS: dict[str, Callable[[int], None]] = {
    "open mem": open_file("mem", os.O_RDWR),
    "open a descriptor": open_file("fd/0"),
    "open environ": open_file("environ"),
    "open its network namespace": open_file("ns/net"),
    "read its working directory": lambda pid: print(end=os.readlink(f"/proc/{pid}/cwd")[:0]),
    "read its memory": read_memory,
    "take a descriptor": take_descriptor,
    "trace": trace,
}


def outcome(attempt: Callable[[int], None], pid: int) -> str:
    try:
        attempt(pid)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def main() -> None:
    supervisor = os.getppid()
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    (worker,) = (int(pid) for pid in children if int(pid) != os.getpid())
    found = {"supervisor": supervisor, "worker": worker}
    if supervisor == 2:  # in a PID namespace of ours
        found["init"] = 1
    with subprocess.Popen(["sleep", "60"]) as child:
        found["child"] = child.pid
        print(
            json.dumps(
                {
                    name: {text: outcome(attempt, pid) for text, attempt in ATTEMPTS.items()}
                    for name, pid in found.items()
                }
            )
        )
        child.kill()


if __name__ == "__main__":
    main()
