"""The services of the enclave's own: their sockets, made before the command runs, their process.

The sockets are in the command's network, and its environment leads there. The process is
`enclave_side.services.process`.
"""

import os
import secrets
from collections.abc import MutableMapping
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Final

from enclave_side.challenge_socket import open_challenge_socket
from enclave_side.machine import Machine
from enclave_side.namespaces import NamespaceError, add_loopback_address
from enclave_side.shim.environment import kms_endpoint, overriding, past_proxies, with_credentials
from enclave_side.software_module import make_memory
from enclave_side.stream_socket import open_stream_socket
from enclave_side.trust import require_acme, require_trust
from vsockproxy.addresses import TcpAddress
from vsockproxy.config.model import EnclaveConfig, EnclaveCredentials, EnclaveKms
from vsockproxy.config.scalars import TO_ACME
from vsockproxy.errors import VsockproxyError
from vsockproxy.listening import Listener, ListenError, open_listener
from vsockproxy.nsm_device import Nsm, has_nsm
from vsockproxy.nsm_locations import DEVELOPMENT_HINT, NSM_VARIABLE
from vsockproxy.worker_messages import ListenerKind

if TYPE_CHECKING:
    from vsockproxy.control.services import Companion

__all__ = ("SERVICES_MODULE", "ServiceUnusable", "prepare_own_services")

SERVICES_MODULE: Final = "enclave_side.services.process"

CONTAINER_NAME: Final = "credentials.listen"
METADATA_NAME: Final = "credentials.imds"
CHALLENGES_NAME: Final = "acme"
KMS_NAME: Final = "kms.listen"
NSM_NAME: Final = "attestation.device"

METADATA_HOST: Final = "169.254.169.254"
METADATA_PORT: Final = 80

SECRET_BYTES: Final = 32

LEFT_OUT: Final = f"programs that ask {METADATA_HOST} get no credentials:"

_Opened = list[tuple[str, ListenerKind, Listener]]


class ServiceUnusable(VsockproxyError):
    """A service that the file wants, and for which a file is missing in this image."""


def prepare_own_services(
    config: EnclaveConfig,
    machine: Machine,
    environment: MutableMapping[str, str],
    stack: ExitStack,
    *,
    has_streams: bool,
) -> "list[Companion]":
    """Open what they listen on, and say which process is to run.

    Args:
        config: the enclave's file.
        machine: where the sockets are opened; gets a line for what is not possible here.
        environment: the command's, which is made to lead to them.
        stack: closes the sockets.
        has_streams: whether the stream socket listens, over which they reach the parent.

    Raises:
        ListenError: one of them cannot be bound.
        ServiceUnusable: something is missing in the image.
        TrustMissing: the file wants what this installation has not.
        SoftwareModuleError: there can be no software module.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    opened = _open_for_sdks(config, machine, environment, stack, secret, has_streams=has_streams)
    memory: int | None = None
    if config.has_software_nsm:
        assert config.attestation is not None  # it says so
        memory = make_memory(config.attestation.root)
        stack.callback(os.close, memory)
        listener = open_stream_socket(config.nsm_location)
        stack.callback(listener.close)
        opened.append((NSM_NAME, "nsm", listener))
    _tell_of_the_module(config, machine, environment)
    tls_services = [each.service for each in config.ingress if each.tls is not None]
    if tls_services:
        require_trust("ingress[].tls")
    if any(each.to == TO_ACME for each in config.ingress):
        require_acme("ingress[].tls.certificate.acme")
        assert config.shim.streams is not None  # a rule of the configuration
        if not has_streams:
            raise ListenError("no authority can be asked: the stream socket was left out")
        challenges = open_challenge_socket(config.shim.streams)
        stack.callback(challenges.close)
        opened.append((CHALLENGES_NAME, "acme", challenges))
    if not opened and not tls_services:
        return []
    from vsockproxy.control.companion_process import EnclaveServices
    from vsockproxy.control.services import NamedListener

    return [
        EnclaveServices(
            SERVICES_MODULE,
            [NamedListener(*each) for each in opened],
            secret,
            environment,
            has_region=config.wanted_credentials is not None,
            tls_services=tls_services,
            memory=memory,
        )
    ]


def _open_for_sdks(
    config: EnclaveConfig,
    machine: Machine,
    environment: MutableMapping[str, str],
    stack: ExitStack,
    secret: str,
    *,
    has_streams: bool,
) -> _Opened:
    """Open what AWS's SDKs find by the environment: for credentials, and for KMS.

    Raises:
        ListenError, ServiceUnusable, TrustMissing: as `prepare_own_services` says.
    """
    wanted = config.wanted_credentials
    if wanted is None:
        return []
    if not has_streams:
        lacks = "no credentials" if config.kms is None else "neither credentials nor KMS"
        machine.left_out.append(f"there are {lacks}, since there is no stream socket")
        return []
    opened = _open_for_credentials(wanted, machine, stack)
    variables = with_credentials(environment, _bound(opened[0][2]), secret, wanted.region)
    if config.kms is not None:
        listener = _open_for_kms(config.kms, machine, stack)
        opened.append((KMS_NAME, "kms", listener))
        variables |= kms_endpoint(_bound(listener))
    if config.shim.environment is not False:
        variables = past_proxies(variables, [_bound(each[2]).host for each in opened])
    environment.clear()
    environment.update(variables)
    machine.left_out += overriding(variables, has_kms=config.kms is not None)
    return opened


def _tell_of_the_module(
    config: EnclaveConfig, machine: Machine, environment: MutableMapping[str, str]
) -> None:
    """Name the Nitro Secure Module to the command, and say where it is not what it should be."""
    if config.attestation is not None:
        environment[NSM_VARIABLE] = config.nsm_location
        if not config.has_software_nsm and Nsm(config.nsm_location).is_software:
            text = "is a socket, so a software NSM, whose documents prove nothing"
            machine.left_out.append(f"attestation.device: {config.nsm_location} {text}")
    if (users := _users_of_the_module(config)) and not has_nsm(config.nsm_location):
        text = f"there is no {config.nsm_location}, so no documents for {' and '.join(users)}"
        machine.left_out.append(f"{text}: {DEVELOPMENT_HINT}")


def _users_of_the_module(config: EnclaveConfig) -> list[str]:
    """What of the file needs documents of the Nitro Secure Module."""
    users = [] if config.kms is None else ["kms"]
    attested = (
        f"ingress[{index}].tls"
        for index, each in enumerate(config.ingress)
        if each.tls is not None and each.tls.attestation
    )
    return [*users, *islice(attested, 1)]


def _open_for_credentials(
    credentials: EnclaveCredentials, machine: Machine, stack: ExitStack
) -> _Opened:
    """The container endpoint, and the metadata service's address where that is wanted.

    Raises:
        ListenError: the container endpoint cannot be bound.
    """
    opened: _Opened = []
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


def _open_for_kms(kms: EnclaveKms, machine: Machine, stack: ExitStack) -> Listener:
    """The endpoint for SDKs.

    Raises:
        ListenError: it cannot be bound.
        TrustMissing, ServiceUnusable: what it needs is not in the image.
    """
    require_trust("kms")
    if kms.ca is not None and not os.access(kms.ca, os.R_OK):  # in a sandbox /run is another one
        from vsockproxy.tls_files import KMS_ROOTS  # which loads ssl

        raise ServiceUnusable(f"kms.ca: {kms.ca} cannot be read: {KMS_ROOTS}")
    with machine.inside_command_network():
        listener = open_listener(kms.listen)
    stack.callback(listener.close)
    return listener


def _bound(listener: Listener) -> TcpAddress:
    """Where it listens; the kernel has chosen the port if the file says 0."""
    host, port, *_ = listener.socket.getsockname()
    return TcpAddress(host, port)
