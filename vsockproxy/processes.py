"""Starting and judging child processes, with the standard library and without a loop.

Children are started with `posix_spawn`: nothing of ours runs between fork and exec, so it is safe
beside threads, and the child's signal mask is set in the same step. Every descriptor that Python
opens is closed at exec unless it is named in `passed`.
"""

import errno
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

__all__ = (
    "MOST_DESCRIPTORS",
    "NOT_EXECUTABLE",
    "NOT_FOUND",
    "SIGNAL_BASE",
    "descriptor_limit",
    "die_with_starter",
    "exit_code",
    "forbid_tracing",
    "has_terminal",
    "is_init_of_machine",
    "module_command",
    "open_pipe",
    "raise_descriptor_limit",
    "start",
    "start_with_output",
    "tell",
)

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
SIGNAL_BASE: Final = 128
"""Exit codes of a shell (POSIX, Shell Command Language, 2.8.2): 128+N for signal N."""

MOST_DESCRIPTORS: Final = 1 << 20
"""Ceiling of our own soft limit: container runtimes set hard limits near 2^30, and programs exist
that close every number up to the soft limit."""

PIPE_BYTES: Final = 256 * 1024
"""Log lines that wait while stderr blocks."""

_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)

_INITIAL_PROCESS_NAMESPACE: Final = "pid:[4026531836]"
"""PROC_PID_INIT_INO of include/linux/proc_ns.h, as /proc/self/ns/pid has it."""

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules in this interpreter.

    `-P` keeps the working directory out of the import path: it belongs to the user's command.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    passed: Collection[int] = (),
    output: int | None = None,
    outputs: tuple[int, int] | None = None,
    has_input: bool = True,
    in_own_group: bool = False,
    keeps_signal_mask: bool = False,
) -> int:
    """Start `command`, looked up in PATH, and return its process id.

    Args:
        command: program and arguments.
        environment: the child's environment; this process's own if None.
        passed: descriptors that stay open in the child, under the same numbers.
        output: becomes the child's stdout and stderr, and /dev/null its stdin. If None, the child
            has this process's own.
        outputs: become the child's stdout and stderr.
        has_input: whether its stdin is this process's own; /dev/null if not.
        in_own_group: in a background process group, so that Ctrl-C does not reach it. (Not a
            session of its own: builds of Python for old C libraries cannot ask for one here.)
        keeps_signal_mask: the child starts with what is blocked here; otherwise with none blocked.

    Raises:
        OSError: as exec says, so ENOENT and EACCES mean that there is no such program, or that it
            is none.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    if output is not None:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
    if outputs is not None:
        actions = [(os.POSIX_SPAWN_DUP2, number, at) for at, number in enumerate(outputs, 1)]
    if not has_input:
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
    if not command[0]:  # for which Python has an error of its own
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    group: dict[str, Any] = {"setpgroup": 0} if in_own_group else {}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) if keeps_signal_mask else ()
    for descriptor in passed:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawnp(
            command[0],
            list(command),
            dict(os.environ if environment is None else environment),
            file_actions=actions,
            setsigmask=blocked,
            setsigdef=_IGNORED_BY_PYTHON,
            **group,
        )
    finally:
        for descriptor in passed:
            os.set_inheritable(descriptor, False)


def start_with_output(command: Sequence[str], *, passed: Collection[int] = ()) -> tuple[int, int]:
    """Start a process of ours in the background, whose stdout and stderr are a pipe to us.

    Args:
        command: program and arguments.
        passed: descriptors that stay open in the child, under the same numbers.

    Returns:
        Its process id, and the read end of the pipe.

    Raises:
        OSError: as of `start`, or there is no descriptor to spare.
    """
    read_end, write_end = open_pipe()
    try:
        pid = start(command, passed=passed, output=write_end, in_own_group=True)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return pid, read_end


def open_pipe() -> tuple[int, int]:
    """A pipe for log lines: its read end and its write end.

    Raises:
        OSError: there are no descriptors to spare.
    """
    read_end, write_end = os.pipe()
    with suppress(OSError):  # a user's pipes have a limit in all (pipe(7)); the default will do
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end


def has_terminal() -> bool:
    """Whether somebody sits at stdout or stderr.

    A console is a terminal too, but never the one that controls a process (tty_open_proc_set_tty in
    drivers/tty/tty_io.c), so that an enclave's is none here.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return os.isatty(1) or os.isatty(2)


def tell(what: object) -> None:
    """Tell the user, on stderr, what happened where there is no log."""
    print(f"vsockproxy: {what}", file=sys.stderr, flush=True)  # noqa: T201 — the one place that may


def exit_code(wait_status: int) -> int:
    """What a shell would report for `wait_status` (of waitpid): the code, or 128+N."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else SIGNAL_BASE - code


def die_with_starter(starter: int | None, number: signal.Signals) -> None:
    """Have the kernel send `number` to this process when the one that started it ends.

    More exactly, when the *thread* that started it ends, so the starter has to be the main thread.

    Args:
        starter: its process id, to find out whether it has ended already (then this process
            exits); None where it is not visible, across process namespaces.
        number: the signal.

    Raises:
        OSError: the kernel refused.
    """
    _prctl(_PR_SET_PDEATHSIG, int(number))
    if starter is not None and os.getppid() != starter:
        sys.exit(SIGNAL_BASE + number)


def is_init_of_machine() -> bool:
    """Whether PID 1, as this process sees it, is a machine's and not a container's.

    False where nobody can tell, since there is no /proc.
    """
    try:
        return os.readlink("/proc/self/ns/pid") == _INITIAL_PROCESS_NAMESPACE
    except OSError:
        return False


def forbid_tracing() -> None:
    """Have the kernel keep every process without CAP_SYS_PTRACE out of this one.

    Those of the same user too. ptrace, pidfd_getfd, process_vm_writev and what /proc/PID has as
    mem, fd or environ all ask one question (kernel/ptrace.c, __ptrace_may_access), which this
    answers. It ends at exec, so each program of ours asks for itself. No core is dumped either.

    Raises:
        OSError: the kernel refused.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, argument: int) -> None:
    import ctypes  # not everywhere: systemd's MemoryDenyWriteExecute may forbid it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def raise_descriptor_limit() -> int:
    """Raise the soft limit on open files towards the hard one; return the former soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft


@contextmanager
def descriptor_limit(soft: int) -> Iterator[None]:
    """Start children under another soft limit on open files; descriptors open now stay open."""
    ours, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ours, hard))
