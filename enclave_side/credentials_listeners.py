"""Where SDKs of the command find credentials: sockets in its network, made before it runs."""

from contextlib import ExitStack
from typing import Final

from enclave_side.machine import Machine
from enclave_side.namespaces import NamespaceError, add_loopback_address
from vsockproxy.addresses import TcpAddress
from vsockproxy.config.model import EnclaveCredentials
from vsockproxy.listening import Listener, ListenError, open_listener
from vsockproxy.worker_messages import ListenerKind

__all__ = ("CONTAINER_NAME", "open_credentials_listeners")

CONTAINER_NAME: Final = "credentials.listen"
METADATA_NAME: Final = "credentials.imds"

METADATA_HOST: Final = "169.254.169.254"
METADATA_PORT: Final = 80

LEFT_OUT: Final = f"programs that ask {METADATA_HOST} get no credentials:"


def open_credentials_listeners(
    credentials: EnclaveCredentials, machine: Machine, stack: ExitStack
) -> list[tuple[str, ListenerKind, Listener]]:
    """Open them; `stack` closes them. What is not possible here is added to `machine.left_out`.

    Raises:
        ListenError: the container endpoint cannot be bound.
    """
    opened: list[tuple[str, ListenerKind, Listener]] = []
    with machine.inside_command_network():
        listener = open_listener(credentials.listen)
        stack.callback(listener.close)
        opened.append((CONTAINER_NAME, "credentials", listener))
        if credentials.imds and machine.note is not None:
            machine.left_out.append(f"{LEFT_OUT} this machine's addresses are not ours to set")
        elif credentials.imds:
            try:
                add_loopback_address(METADATA_HOST)
                listener = open_listener(TcpAddress(METADATA_HOST, METADATA_PORT))
            except (NamespaceError, ListenError) as error:
                machine.left_out.append(f"{LEFT_OUT} {error}")
            else:
                stack.callback(listener.close)
                opened.append((METADATA_NAME, "imds", listener))
    return opened
