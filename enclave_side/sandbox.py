"""An enclave without Nitro: the enclave's side and a command in namespaces of their own.

Three processes stand in a row, and share the caller's process group, so that the terminal works:

    vsockproxy sandbox            outside; waits, and ends the parent service at the end
      enclave_side.init           PID 1 inside; made by fork, so it has nothing to start up
        enclave_side.entrypoint   the supervisor, just as in an enclave, and below it the command

A development tool, not a boundary: the file system is shared, and AF_VSOCK is not namespaced.
"""

import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from enclave_side import init
from enclave_side.entrypoint import FAILED, WORKER_MODULE, supervisor_command
from enclave_side.namespaces import (
    MountFlag,
    Namespace,
    NamespaceError,
    map_to_root,
    mount,
    set_host_name,
    unshare,
    why_user_namespaces_fail,
)
from vsockproxy import processes
from vsockproxy.config.document import Document
from vsockproxy.worker_messages import document_descriptor

__all__ = ("LINK_CID", "Sandbox", "link_directory", "run")

LINK_CID: Final = 16
"""The CID that the sandbox has as an enclave."""

HOST_NAME: Final = "enclave"

HOSTS: Final = f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost\n"
NSSWITCH: Final = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
RESOLV: Final = "nameserver 127.0.0.1\noptions ndots:1\n"
"""Nothing listens there yet, so that a lookup fails at once."""

PARENT_STOP_SECONDS: Final = 2.0

_MAX_DIRECTORY_BYTES: Final = 80
"""A socket's path has 107 bytes (unix(7)), and its name needs some."""

_INSIDE: Final = Namespace.NETWORK | Namespace.MOUNT | Namespace.UTS | Namespace.IPC


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a sandbox runs.

    Args:
        document: an enclave's configuration, whose `parent` is where the parent service listens.
        command: the command, not empty.
        parent_command: the parent service's.
        parent_descriptor: stays open in the parent service.
        worker_module: the module that is executed as a worker of the enclave's side.
    """

    document: Document
    command: Sequence[str]
    parent_command: Sequence[str]
    parent_descriptor: int
    worker_module: str = WORKER_MODULE


@contextmanager
def link_directory() -> Iterator[Path]:
    """A private directory for the link's socket that can be reached inside too; removed after."""
    directory = Path(tempfile.mkdtemp(prefix="vsockproxy-", dir=_find_temporary_directory()))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _find_temporary_directory() -> str:
    """The usual place, unless it is hidden inside by an empty /run, or too long for a socket."""
    usual = os.path.realpath(tempfile.gettempdir())
    is_hidden = any(usual == hidden or usual.startswith(f"{hidden}/") for hidden in ("/run", "/proc"))
    return "/tmp" if is_hidden or len(os.fsencode(usual)) > _MAX_DIRECTORY_BYTES else usual


def run(sandbox: Sandbox) -> int:
    """Run the command in a sandbox; the exit code, its own. 1 if there can be no sandbox."""
    init.block_signals()
    document = document_descriptor(sandbox.document)
    parent = processes.start(
        sandbox.parent_command,
        passed=[sandbox.parent_descriptor],
        output=sys.stderr.fileno(),
        in_own_group=True,
    )
    is_parent_running = True
    try:
        try:
            _enter_outer_namespaces()
        except NamespaceError as error:
            _report(error)
            return FAILED
        first = _fork_init(lambda: _be_init(sandbox, document))
        ended, status = init.wait_for_child(first, {first, parent})
        if ended == first:
            return processes.exit_code(status)
        is_parent_running = False
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        _print(f"the parent service ended with status {processes.exit_code(status)}")
        return FAILED
    finally:
        if is_parent_running:
            _end(parent)


def _enter_outer_namespaces() -> None:
    """Make the next child PID 1, and root of a user namespace where that can be had."""
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(Namespace.USER | Namespace.PID)
    except NamespaceError as error:
        try:
            unshare(Namespace.PID)  # root needs no user namespace
        except NamespaceError:
            raise NamespaceRefused(error.number) from error
        return
    try:
        map_to_root(user, group)
    except NamespaceError as error:
        raise NamespaceRefused(error.number) from error
