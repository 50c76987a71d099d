"""The machine as our side sets it up: interfaces, the command's network, its resolv.conf.

Happens only where the machine is ours: as PID 1, in the sandbox, or with `--take-over`.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final

from enclave_side.boot import Ground
from enclave_side.command_network import NetworkFailed, NetworkSetUp, inside
from enclave_side.kernel_settings import apply_settings, wanted_settings
from enclave_side.namespaces import NamespaceError, bring_up_loopback, permit_low_ports
from enclave_side.shim.names.planning import Names, plan_names
from enclave_side.system_files import hide_file, own_mounts
from vsockproxy.config.document import Document
from vsockproxy.config.endpoint_url import parse_endpoint_url
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.config.patterns import Pattern
from vsockproxy.policy import Policy
from vsockproxy.worker_messages import SocketsWanted

__all__ = ("LEFT_OUT", "Machine", "set_up_machine")

LEFT_OUT: Final = (
    "machine set-up was left out, since this is neither PID 1 nor --take-over: "
    "the interface lo is used as it is, and names are off"
)
LEFT_OUT_LOW_PORTS: Final = "ports below 1024 need command.capabilities: [NET_BIND_SERVICE], since"
LEFT_OUT_NAMES: Final = "names are off, programs need the proxies or forwards:"

RESOLV_CONF: Final = "/etc/resolv.conf"


@dataclass(slots=True)
class Machine:
    """What was set up.

    Args:
        names: the names way in; None where it is off.
        namespace: the descriptor of the command's network namespace; None if it is ours.
        left_out: a line for each thing that could not be done.
        note: what was not even tried, for one line; None where the machine is ours.
    """

    names: Names | None = None
    namespace: int | None = None
    left_out: list[str] = field(default_factory=list)
    note: str | None = None

    @property
    def descriptors(self) -> list[int]:
        """What the command's launcher needs open."""
        return [] if self.namespace is None else [self.namespace]

    def make_sockets(self, wanted: SocketsWanted) -> list[socket.socket]:
        """Unconnected TCP sockets of the command's network; fewer, if descriptors are used up."""
        family = socket.AF_INET if wanted.ip_version == 4 else socket.AF_INET6
        made: list[socket.socket] = []
        with suppress(OSError, NamespaceError), self.inside_command_network():
            while len(made) < wanted.count:
                made.append(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        return made

    def inside_command_network(self) -> AbstractContextManager[None]:
        """Where what the command connects to on 127.0.0.1 is to be opened."""
        return nullcontext() if self.namespace is None else inside(self.namespace)


@contextmanager
def set_up_machine(document: Document, *, ground: Ground, has_command: bool) -> Iterator[Machine]:
    """Set the machine up, as far as it is ours.

    Args:
        document: an enclave's configuration.
        ground: what we stand on.
        has_command: without a command, nobody needs a network of its own.

    Raises:
        NamespaceError: not even lo can be brought up.
    """
    config = document.config
    assert isinstance(config, EnclaveConfig)
    machine = Machine()
    if ground == "shared":
        machine.note = LEFT_OUT
        yield machine
        return
    bring_up_loopback()
    if has_command and config.shim.names:
        try:
            _set_up_names(machine, document, shares_files=ground == "sandbox")
        except (NetworkFailed, NamespaceError, OSError) as error:
            machine.left_out.append(f"{LEFT_OUT_NAMES} {error}")
    if ground != "sandbox":
        settings = wanted_settings(config.machine.sysctls)
        if ground != "container":
            machine.left_out += apply_settings(settings)
        if machine.namespace is not None:
            with inside(machine.namespace):
                machine.left_out += apply_settings(settings, of_network_only=True)
    if machine.names is None:
        try:
            permit_low_ports()
        except NamespaceError as error:
            machine.left_out.append(f"{LEFT_OUT_LOW_PORTS} {error}")
    try:
        yield machine
    finally:
        if machine.namespace is not None:
            os.close(machine.namespace)


def _set_up_names(machine: Machine, document: Document, *, shares_files: bool) -> None:
    names = plan_names(document, Policy.compile(document))
    namespace = NetworkSetUp(names.network).finish()
    try:
        content = f"nameserver {names.network.server}\noptions ndots:1\n"
        if not shares_files:
            own_mounts()
        if not hide_file(RESOLV_CONF, content, may_create=not shares_files):
            machine.left_out.append(f"lookups need an {RESOLV_CONF}, and there is none here")
    except BaseException:
        os.close(namespace)
        raise
    machine.names, machine.namespace = names, namespace
    config = document.config
    assert isinstance(config, EnclaveConfig)
    machine.left_out += [
        f"names leave out {each}"
        for each in names.port_sets.left_out
        if not _is_for_kms(config, each.rule.pattern)
    ]


def _is_for_kms(config: EnclaveConfig, pattern: Pattern) -> bool:
    """Whether a rule is for an endpoint of `kms`, which programs do not connect to themselves."""
    endpoints = config.kms.endpoints if config.kms is not None else {}
    hosts = {parse_endpoint_url(url).host.text for url in endpoints.values()}
    return str(pattern) in hosts
