"""Files of the system that the command is to find with another content."""

import os
from typing import Final

from enclave_side.namespaces import MountFlag, mount

__all__ = ("hide_file", "rewrite_file")

_SCRATCH: Final = "/run"
"""A tmpfs of our own in the sandbox, and in most images."""


def rewrite_file(path: str, content: str, *, may_create: bool) -> bool:
    """Give a file another content: written where that is possible, otherwise mounted over.

    Args:
        path: the file; a link is followed.
        content: ASCII.
        may_create: whether it is made where there is none.

    Returns:
        False where there is none, and it may not be made.

    Raises:
        NamespaceError: it can neither be written nor be mounted over.
        OSError: there is no place for the new content.
    """
    target = os.path.realpath(path)
    if not os.path.exists(target):
        if not may_create:
            return False
        os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        _write(target, content)
    except OSError:
        _mount_over(target, content)
    return True


def hide_file(path: str, content: str) -> None:
    """Give a file another content in this mount namespace only, whose /run is a tmpfs of its own.

    One that is not there stays so, unless it is a link into /run.

    Raises:
        NamespaceError: the kernel refused the mount.
        OSError: /run cannot be written.
    """
    target = os.path.realpath(path)
    if target.startswith(f"{_SCRATCH}/"):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write(target, content)
    elif os.path.exists(target):
        _mount_over(target, content)


def _mount_over(target: str, content: str) -> None:
    source = f"{_SCRATCH}/{os.path.basename(target)}.vsockproxy"
    _write(source, content)
    try:
        mount(source, target, flags=MountFlag.BIND)
    finally:
        os.unlink(source)  # the mount keeps it


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
