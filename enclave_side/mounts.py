"""The file systems that a machine has: those that are missing are mounted, the others stay.

Only for the process below PID 1. In a container they are mounted for us and our children alone.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enclave_side.namespaces import MountFlag, NamespaceError, mount
from enclave_side.system_files import own_mounts

__all__ = ("mount_missing", "mount_proc")

_SAFE: Final = MountFlag.NO_SET_USER_ID | MountFlag.NO_DEVICES | MountFlag.NO_EXECUTION

_DIRECTORY_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class _Mount:
    """A file system, where it belongs, and what mount(2) is told.

    Args:
        may_be_directory: whether a directory that can be written to does as well, but where the
            whole machine is ours.
        is_optional: whether nobody misses it.
    """

    target: str
    kind: str
    flags: MountFlag = _SAFE
    data: str = ""
    may_be_directory: bool = False
    is_optional: bool = False


_PROC: Final = _Mount("/proc", "proc")
_DEVICES: Final = MountFlag.NO_SET_USER_ID | MountFlag.NO_EXECUTION
_OTHERS: Final = (
    _Mount("/sys", "sysfs"),
    _Mount("/dev", "devtmpfs", _DEVICES, "mode=755"),
    _Mount("/dev/pts", "devpts", _DEVICES, "mode=620,ptmxmode=666"),
    _Mount("/dev/shm", "tmpfs", data="mode=1777"),
    # Programs unpack and execute files in /tmp, and sockets and locks in /run are no programs.
    _Mount(
        "/tmp",
        "tmpfs",
        MountFlag.NO_SET_USER_ID | MountFlag.NO_DEVICES,
        "mode=1777",
        may_be_directory=True,
    ),
    _Mount("/run", "tmpfs", data="mode=755", may_be_directory=True),
    _Mount("/sys/fs/cgroup", "cgroup2", is_optional=True),
)

_LINKS: Final = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}


def mount_proc() -> list[str]:
    """Mount /proc if it is missing, which tells whose machine this is; a line if it cannot be had.

    Where there is none, nothing is hidden by it, whoever else sees it.
    """
    left_out: list[str] = []
    if not os.path.ismount(_PROC.target):
        _mount(_PROC, left_out)
    return left_out


def mount_missing(*, is_whole: bool) -> list[str]:
    """Mount what is missing; a line for each thing that is, and could not be had.

    Args:
        is_whole: whether the whole machine is ours. In a container, mounts are made in a namespace
            of our own.
    """
    left_out = mount_proc()
    missing = [each for each in _OTHERS if _is_missing(each, is_whole=is_whole)]
    if missing and not is_whole:
        try:
            own_mounts()
        except NamespaceError as error:
            names = " ".join(each.target for each in missing if not each.is_optional)
            return [*left_out, f"not mounted: {names}: {error}"] if names else left_out
    for each in missing:
        _mount(each, left_out)
    for path, target in _LINKS.items():
        if not os.path.lexists(path):
            try:
                os.symlink(target, path)
            except OSError as error:
                left_out.append(f"no {path}: {error.strerror}")
    return left_out


def _is_missing(wanted: _Mount, *, is_whole: bool) -> bool:
    if os.path.ismount(wanted.target):
        return False
    if not wanted.may_be_directory or is_whole:
        return not wanted.is_optional or _is_known(wanted.kind)
    return not os.access(wanted.target, os.W_OK)


def _is_known(kind: str) -> bool:
    """Whether this kernel has such file systems."""
    try:
        return kind in Path("/proc/filesystems").read_text().split()
    except OSError:
        return False


def _mount(wanted: _Mount, left_out: list[str]) -> None:
    try:
        os.makedirs(wanted.target, _DIRECTORY_MODE, exist_ok=True)
        mount(wanted.kind, wanted.target, wanted.kind, wanted.flags, wanted.data)
    except NamespaceError as error:
        # EBUSY: the same is mounted there already, below another root.
        if not wanted.is_optional and error.number != errno.EBUSY:
            left_out.append(f"not mounted: {wanted.target}: {error}")
    except OSError as error:
        if not wanted.is_optional:
            left_out.append(f"not mounted: {wanted.target}: no such directory: {error.strerror}")
