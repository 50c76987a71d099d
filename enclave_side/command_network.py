"""The command's network namespace, as the supervisor has it."""

import os
import signal
import socket
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from enclave_side.namespaces import Namespace, enter_namespace
from enclave_side.network_plan import NetworkPlan
from vsockproxy import processes
from vsockproxy.errors import VsockproxyError

__all__ = ("NetworkFailed", "NetworkSetUp", "inside")

SET_UP_SECONDS: Final = 20.0
"""Far more than it takes; a kernel that hangs is not waited for."""

_MOST_TEXT_BYTES: Final = 4096


class NetworkFailed(VsockproxyError):
    """The namespace cannot be made; says which step the kernel refused."""


class NetworkSetUp:
    """Makes the namespace in a process of its own, while this one goes on.

    Args:
        plan: what to make.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        self._channel, theirs = socket.socketpair()
        try:
            with theirs:
                self._pid = processes.start(
                    processes.module_command("enclave_side.network_setup", str(theirs.fileno())),
                    passed=[theirs.fileno()],
                    in_own_group=True,
                )
            self._channel.settimeout(SET_UP_SECONDS)
            with suppress(OSError):  # it has ended: `finish` finds out
                self._channel.sendall(plan.to_json().encode())
                self._channel.shutdown(socket.SHUT_WR)
        except BaseException:
            self._channel.close()
            raise

    def finish(self) -> int:
        """Wait for the namespace; its descriptor, which the caller closes.

        Raises:
            NetworkFailed: it could not be made.
        """
        with self._channel:
            try:
                text, ancillary, _, _ = self._channel.recvmsg(
                    _MOST_TEXT_BYTES,
                    socket.CMSG_SPACE(array("i").itemsize),
                    socket.MSG_CMSG_CLOEXEC,
                )
            except OSError as error:
                text, ancillary = str(error).encode(), []
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)  # it has nothing left to do
        os.waitpid(self._pid, 0)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                return array("i", content)[0]
        raise NetworkFailed(text.decode("utf-8", "replace") or "the set-up process died")


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Be in another network namespace for a while; only for a process with a single thread.

    Raises:
        NamespaceError: not permitted.
    """
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        enter_namespace(namespace, Namespace.NETWORK)
        try:
            yield
        finally:
            enter_namespace(ours, Namespace.NETWORK)
    finally:
        os.close(ours)
