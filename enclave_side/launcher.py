"""Starts the user's command behind the fence, and is gone: it becomes the command.

    python -I -S -X utf8 launcher.py INSTRUCTIONS REPORT PROGRAM ARG...

Runs between the supervisor and the command, as a file, with the standard library alone. The
command waits for it, so it imports next to nothing: `typing` or `signal` would cost as much as all
that it does.

INSTRUCTIONS are words `NAME=VALUE`; whatever their order, they are followed in this one:

    namespace=DESCRIPTOR          join the network namespace that the descriptor stands for
    user=UID:GID:GROUP,GROUP...   become that user, with these supplementary groups
    directory=HEX                 change to the directory of that path
    capabilities=HEX              keep these (bit N is capability N), drop the others for good
    filter=HEX                    install this seccomp program
    optional_filter=HEX           the same, where the kernel has such filters

Before the filter the process gives up new privileges (PR_SET_NO_NEW_PRIVS), so that no set-user-ID
program and no file capability undoes the rest.

REPORT is the descriptor of a pipe. It closes when PROGRAM runs, without a word; otherwise it gets
one line, `STEP ERRNO TEXT`, and PROGRAM does not run. STEP is one of the names above,
`no_new_privileges`, or `exec`.
"""

import ctypes
import errno
import os
import sys

_CLONE_NEWNET = 0x4000_0000  # include/uapi/linux/sched.h

# include/uapi/linux/prctl.h
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_CAPABILITY_VERSION_3 = 0x2008_0522  # include/uapi/linux/capability.h
_WORD_BITS = 32
_WORDS = 2

# include/uapi/linux/seccomp.h
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_CALLS = {"x86_64": 317, "aarch64": 277}
_INSTRUCTION_BYTES = 8
_UNKNOWN_TO_THE_KERNEL = (errno.EINVAL, errno.ENOSYS)
_NO_FILTERS = (
    "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER): with command: {vsock: allow} the "
    "command runs without"
)

# signal(7)
_SIGINT = 2
_IGNORED_BY_PYTHON = (13, 25)  # SIGPIPE and SIGXFSZ
_SIG_DFL = 0
_SIG_IGN = 1
_SIG_SETMASK = 2
_SIGNAL_SET_BYTES = 128

_FAILED = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p]
_libc.syscall.restype = ctypes.c_long
_libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
_libc.signal.restype = ctypes.c_void_p

_Words = ctypes.c_uint32 * (3 * _WORDS)
"""`struct __user_cap_data_struct[2]`: effective, permitted, inheritable; low halves first."""


class _Program(ctypes.Structure):
    """`struct sock_fprog` (include/uapi/linux/filter.h)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, argument: int, second: int = 0) -> None:
    _check(_libc.prctl(option, argument, second, 0, 0))


def _join_namespace(text: str) -> None:
    descriptor = int(text)
    _check(_libc.setns(descriptor, _CLONE_NEWNET))
    os.close(descriptor)


def _become_user(text: str) -> None:
    user, group, groups = text.split(":")
    # The change would take away every capability, before it is known which are to be kept.
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([int(each) for each in groups.split(",") if each])
    os.setresgid(int(group), int(group), int(group))
    os.setresuid(int(user), int(user), int(user))


def _change_directory(text: str) -> None:
    os.chdir(bytes.fromhex(text))


def _keep_capabilities(text: str) -> None:
    kept = int(text, 16)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = _Words()
    _check(_libc.capget(header, data))
    permitted = data[1] | data[4] << _WORD_BITS
    inheritable = data[2] | data[5] << _WORD_BITS
    # Another user has permitted capabilities only, and what follows asks for effective ones.
    _set_capabilities(header, permitted, inheritable)
    _drop_from_bounding_set(kept)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(header, kept, kept)
    # Through exec a program that is not root's keeps what is ambient, and nothing else.
    for number in range(_WORDS * _WORD_BITS):
        if kept >> number & 1:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def _set_capabilities(header: ctypes.Array[ctypes.c_uint32], held: int, inheritable: int) -> None:
    low = (1 << _WORD_BITS) - 1
    words = [held & low, held & low, inheritable & low]
    words += [held >> _WORD_BITS, held >> _WORD_BITS, inheritable >> _WORD_BITS]
    _check(_libc.capset(header, _Words(*words)))


def _drop_from_bounding_set(kept: int) -> None:
    for number in range(_WORDS * _WORD_BITS):
        if kept >> number & 1:
            continue
        try:
            _prctl(_PR_CAPBSET_DROP, number)
        except OSError as error:
            # EINVAL: the kernel has no more of them. EPERM: not without CAP_SETPCAP; but this set
            # limits what programs gain at exec, and without new privileges they gain nothing
            # (security/commoncap.c, cap_bprm_creds_from_file).
            if error.errno in (errno.EINVAL, errno.EPERM):
                return
            raise


def _install_filter(text: str) -> None:
    instructions = bytes.fromhex(text)
    program = _Program(len(instructions) // _INSTRUCTION_BYTES, instructions)
    # Kernels before 5.16 slow a process with a filter down (spec_store_bypass_disable, spectre_v2),
    # against spying on itself, unless it says that it need not be.
    flags = _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    try:
        _seccomp(flags, program)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _seccomp(0, program)  # before 4.17 there is no such flag


def _install_filter_if_possible(text: str) -> None:
    try:
        _install_filter(text)
    except OSError as error:
        if error.errno not in _UNKNOWN_TO_THE_KERNEL:
            raise


def _seccomp(flags: int, program: _Program) -> None:
    call = SECCOMP_CALLS[os.uname().machine]
    if _libc.syscall(call, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program)) != 0:
        number = ctypes.get_errno()
        text = _NO_FILTERS if number in _UNKNOWN_TO_THE_KERNEL else os.strerror(number)
        raise OSError(number, text)


def _forbid_new_privileges(text: str) -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, int(text))


_STEPS = (
    ("namespace", _join_namespace),
    ("user", _become_user),
    ("directory", _change_directory),
    ("capabilities", _keep_capabilities),
    ("no_new_privileges", _forbid_new_privileges),
    ("filter", _install_filter),
    ("optional_filter", _install_filter_if_possible),
)


def _read_environment() -> dict[bytes, bytes]:
    """The environment that this process was given.

    Not `os.environ`: where the locale is C, Python's start adds LC_CTYPE to that (PEP 538).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:  # no /proc here
        return dict(os.environb)
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


def _reset_signals() -> None:
    """Undo what Python's start did, and let through what has waited since the supervisor's."""
    for number in _IGNORED_BY_PYTHON:
        _libc.signal(number, _SIG_DFL)
    if _libc.signal(_SIGINT, _SIG_DFL) == _SIG_IGN:  # a shell's background process
        _libc.signal(_SIGINT, _SIG_IGN)
    _libc.pthread_sigmask(_SIG_SETMASK, bytes(_SIGNAL_SET_BYTES), None)


def _execute(command: list[bytes], environment: dict[bytes, bytes]) -> None:
    """Become the command, looked up as execvp(3) does; returns only by OSError."""
    program = command[0]
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not program:
        raise missing
    if b"/" in program:
        os.execve(program, command, environment)
    refused: OSError = missing
    for folder in environment.get(b"PATH", os.fsencode(os.defpath)).split(b":"):
        try:
            os.execve(os.path.join(folder, program), command, environment)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except PermissionError as error:
            refused = error
    raise refused


def main(arguments: list[str]) -> None:
    """Follow the instructions, then become the command; exits with 1 where that fails."""
    words, report_text, *command = arguments
    report = int(report_text)
    os.set_inheritable(report, False)
    step = "instructions"
    try:
        environment = _read_environment()
        instructions = dict(word.split("=", 1) for word in words.split())
        instructions["no_new_privileges"] = "1"
        if unknown := instructions.keys() - dict(_STEPS).keys():
            raise ValueError(f"unknown: {' '.join(unknown)}")
        for step, follow in _STEPS:
            if step in instructions:
                follow(instructions[step])
        step = "exec"
        _reset_signals()
        _execute([os.fsencode(word) for word in command], environment)
    except OSError as error:
        os.write(report, f"{step} {error.errno or 0} {error.strerror}".encode())
    except Exception as error:  # whatever it is, the command must not run
        os.write(report, f"{step} 0 {error!r}".encode())
    os._exit(_FAILED)


if __name__ == "__main__":
    main(sys.argv[1:])
