"""Files of the system that the command is to find with another content.

They are mounted over, in a mount namespace of our own: the file itself stays as it is, for others
now and for everybody later.
"""

import errno
import os
import tempfile
from typing import Final

from enclave_side.namespaces import MountFlag, Namespace, NamespaceError, mount, unshare

__all__ = ("hide_file", "own_mounts")

_SCRATCH: Final = ("/run", "/tmp", "/dev/shm")
"""Where a file may be put for a moment; an image has at least one of them that can be written."""


def own_mounts() -> None:
    """From now on, what is mounted is seen by this process and those below it alone.

    Raises:
        NamespaceError: not permitted.
    """
    unshare(Namespace.MOUNT)
    try:
        mount("none", "/", flags=MountFlag.RECURSIVE | MountFlag.PRIVATE)
    except NamespaceError as error:
        # In a chroot, as AWS's init makes one, / is no mount point, and what it is on cannot be
        # named. The kernel shares no mounts of its own accord; only systemd does.
        if error.number != errno.EINVAL:
            raise


def hide_file(path: str, content: str, *, may_create: bool) -> bool:
    """Give a file another content, in this mount namespace only.

    Args:
        path: the file; a link is followed.
        content: ASCII.
        may_create: whether it is written where there is none, or where it cannot be mounted over;
            then it stays.

    Returns:
        False where there is none, and it may not be made.

    Raises:
        NamespaceError: the kernel refused the mount.
        OSError: there is no place for the content.
    """
    target = os.path.realpath(path)
    if not os.path.exists(target):
        if not may_create and not target.startswith("/run/"):  # which is empty in the sandbox
            return False
        os.makedirs(os.path.dirname(target), exist_ok=True)
    elif os.stat(target).st_nlink:  # otherwise it is hidden already, and can be written
        try:
            _mount_over(target, content)
        except (NamespaceError, OSError):
            if not may_create:
                raise
        else:
            return True
    with open(target, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
    return True


def _mount_over(target: str, content: str) -> None:
    scratch = next((each for each in _SCRATCH if os.access(each, os.W_OK)), None)
    with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=scratch) as source:
        os.fchmod(source.fileno(), 0o644)
        source.write(content)
        source.flush()
        mount(source.name, target, flags=MountFlag.BIND)  # keeps the file, which loses its name
