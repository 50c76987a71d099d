"""An enclave without Nitro: the enclave's side and a command in namespaces of their own.

Three processes stand in a row, and share the caller's process group, so that the terminal works:

    vsockproxy sandbox            outside; waits, and ends the parent service at the end
      enclave_side.init           PID 1 inside; made by fork, so it has nothing to start up
        enclave_side.entrypoint   the supervisor, just as in an enclave, and below it the command

A development tool, not a boundary: the file system is shared, and the command is the caller's user.
"""

import errno
import os
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
from enclave_side.system_files import hide_file
from vsockproxy import processes
from vsockproxy.config.document import Document
from vsockproxy.passed_memory import document_descriptor

__all__ = ("LINK_CID", "Sandbox", "link_directory", "run")

LINK_CID: Final = 16
"""The CID that the sandbox has as an enclave."""

HOST_NAME: Final = "enclave"

HOSTS: Final = f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost\n"
NSSWITCH: Final = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
RESOLV: Final = "nameserver 127.0.0.1\noptions ndots:1\n"
"""Nothing listens there, so that a lookup fails at once; names have a server of their own."""

AGENTS: Final = (
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "GPG_AGENT_INFO",
    "SSH_AGENT_PID",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
)
"""Variables that lead to sockets of the machine outside, which an enclave does not have."""

PARENT_STOP_SECONDS: Final = 2.0

STDERR: Final = 2

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
    """A private directory for the link's socket that can be reached inside too; removed after.

    From here on signals wait for `run` to take them, so that none ends the process before that.
    """
    init.block_signals()
    directory = Path(tempfile.mkdtemp(prefix="vsockproxy-", dir=_find_temporary_directory()))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _find_temporary_directory() -> str:
    """The usual place, unless it is hidden inside by an empty /run, or too long for a socket."""
    usual = os.path.realpath(tempfile.gettempdir())
    is_hidden = f"{usual}/".startswith(("/run/", "/proc/"))
    return "/tmp" if is_hidden or len(os.fsencode(usual)) > _MAX_DIRECTORY_BYTES else usual


def run(sandbox: Sandbox) -> int:
    """Run the command in a sandbox; the exit code, its own. 1 if there can be no sandbox.

    To be called within `link_directory`, which blocks signals.
    """
    document = document_descriptor(sandbox.document)
    # It starts up while the namespaces are made, and stays outside of them.
    parent = processes.start(
        sandbox.parent_command,
        passed=[sandbox.parent_descriptor],
        output=STDERR,
        in_own_group=True,
    )
    try:
        _enter_outer_namespaces()
        first = _fork_init(sandbox, document)
        ended, status = init.wait_for_child(first, {first, parent})
    except (NamespaceError, OSError) as error:
        processes.tell(error)
        _end(parent)
        return FAILED
    if ended == first:
        _end(parent)
        return processes.exit_code(status)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    processes.tell(f"the parent service ended with status {processes.exit_code(status)}")
    return FAILED


def _enter_outer_namespaces() -> None:
    """Have the next child be PID 1 and, where that can be had, root of a user namespace."""
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(Namespace.USER | Namespace.PID)
    except NamespaceError as error:
        try:
            unshare(Namespace.PID)  # root needs no user namespace
        except NamespaceError:
            raise error.because(why_user_namespaces_fail(error.number)) from None
        return
    try:
        map_to_root(user, group)
    except NamespaceError as error:
        raise error.because(why_user_namespaces_fail(error.number)) from None


def _fork_init(sandbox: Sandbox, document: int) -> int:
    """Fork PID 1, which ends when this process does, whatever ends it; its process id."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(read_end)  # and `write_end` stays open for as long as this process lives
        return pid
    code = FAILED
    try:
        os.close(write_end)
        processes.die_with_starter(None, signal.SIGKILL)
        has_lost_starter = bool(select.select([read_end], [], [], 0)[0])
        if not has_lost_starter:
            _set_up_machine()
            for name in AGENTS:
                os.environ.pop(name, None)
            command = supervisor_command(
                document, sandbox.command, sandbox.worker_module, shares_files=True
            )
            code = init.run(command, passed=[document])
    except (NamespaceError, OSError) as error:
        processes.tell(error)
    except BaseException:
        traceback.print_exc()
    finally:
        # This copy of the process must not run what its callers wait to do at their end.
        os._exit(code)


def _set_up_machine() -> None:
    """Everything but the interface lo, which the entrypoint brings up as in an enclave.

    Raises:
        NamespaceError: the kernel refused a step.
        OSError: a file could not be written.
    """
    unshare(_INSIDE)
    try:
        mount("none", "/", flags=MountFlag.RECURSIVE | MountFlag.PRIVATE)
    except NamespaceError as error:
        if error.number == errno.EINVAL:
            raise error.because(
                "/ is no mount point here: a chroot cannot have a sandbox"
            ) from None
        raise error.because(
            "something forbids mounts, in a container its AppArmor profile: run it with "
            "--security-opt apparmor=unconfined"
        ) from None
    flags = MountFlag.NO_SET_USER_ID | MountFlag.NO_DEVICES
    try:
        mount("proc", "/proc", "proc", flags | MountFlag.NO_EXECUTION)
    except NamespaceError as error:
        raise error.because(
            "a container hides parts of /proc: run it with --security-opt systempaths=unconfined"
        ) from None
    # Sockets with a path cross network namespaces: nscd, systemd-resolved, D-Bus, docker.
    mount("tmpfs", "/run", "tmpfs", flags, "mode=0755")
    for path, content in {
        "/etc/hosts": HOSTS,
        "/etc/nsswitch.conf": NSSWITCH,
        "/etc/resolv.conf": RESOLV,
    }.items():
        hide_file(path, content, may_create=False)
    set_host_name(HOST_NAME)


def _end(parent: int) -> None:
    """Stop the parent service, which is given a little time for its last log lines."""
    os.kill(parent, signal.SIGTERM)
    deadline = time.monotonic() + PARENT_STOP_SECONDS
    while os.waitpid(parent, os.WNOHANG) == (0, 0):
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
            return
        signal.sigtimedwait({signal.SIGCHLD}, left_seconds)
