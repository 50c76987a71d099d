"""The sections of a parent's file (`model` has the file)."""

from typing import Annotated, Literal

import msgspec

from vsockproxy.addresses import UnixAddress
from vsockproxy.config.field_types import ContextId, FilePath, Name, ProxyProtocol
from vsockproxy.config.scalars import (
    AddressText,
    DestinationText,
    EndpointText,
    HostText,
    NameServerText,
    PatternText,
    TcpAddressText,
)
from vsockproxy.config.shared_sections import (
    CREDENTIALS_SOCKET,
    AllowRule,
    DenyRule,
    EnclaveLimits,
    Log,
    Section,
)

__all__ = (
    "Admin",
    "EnclaveEntry",
    "IngressRoute",
    "ParentCredentials",
    "ParentForward",
    "ParentIngress",
    "ParentLog",
    "Resolver",
    "UpstreamProxy",
)


class ParentLog(Log, frozen=True):
    """How lines are written to stderr, those of enclaves among them."""

    enclave_lines: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1000
    """Lines of its log that one enclave may have written here in a second; 0 means no limit."""


class Admin(Section, frozen=True):
    """The parent's admin endpoint."""

    listen: EndpointText
    """Where it listens."""


class ParentCredentials(Section, frozen=True):
    """Which enclaves get the credentials of the instance's role, and where they come from."""

    cids: Annotated[list[ContextId], msgspec.Meta(min_length=1)]
    """The enclaves."""
    socket: EndpointText = UnixAddress(CREDENTIALS_SOCKET)
    """The unix socket on which `vsockproxy credentials` listens."""


class Resolver(Section, frozen=True):
    """How the parent resolves names; without it, the system's resolv.conf and hosts."""

    servers: Annotated[list[NameServerText], msgspec.Meta(min_length=1)] | None = None
    """`ADDRESS` or `ADDRESS:PORT` of DNS servers, asked instead of those in resolv.conf."""
    hosts: dict[HostText, Annotated[list[AddressText], msgspec.Meta(min_length=1)]] = {}
    """Names with fixed addresses, tried before any server."""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    """Seconds for one lookup."""


class UpstreamProxy(Section, frozen=True, rename={"except_": "except"}):
    """An HTTP proxy that the parent reaches destinations through, with CONNECT."""

    address: DestinationText
    """`HOST:PORT` of the proxy; the address guard does not judge it."""
    credentials: FilePath | None = None
    """A file with `user:password` on one line, for Basic authentication; not for all to read."""
    except_: list[PatternText] = []
    """What is dialled directly: names and patterns as in rules, addresses and CIDRs."""
    resolve: Literal["here", "upstream"] = "here"
    """`here` looks names up, guards their addresses and has the proxy connect to one of these;
    `upstream` sends the name, so that address guard and denied ranges see literals only."""


class EnclaveEntry(Section, frozen=True):
    """What differs for the enclave with one CID: its allowlist replaces the file's."""

    cid: ContextId
    """The enclave's context identifier (CID)."""
    name: Name | None = None
    """What logs call it."""
    allowlist: list[AllowRule] = []
    """What it may reach, in place of the file's allowlist."""
    denylist: list[DenyRule] = []
    """What it may not reach, in addition to the file's denylist."""
    limits: EnclaveLimits = EnclaveLimits()


class ParentForward(Section, frozen=True):
    """A raw port on the parent, as AWS's vsock-proxy offers: each connection goes to `to`."""

    listen: EndpointText
    """`vsock://any:PORT`, or a unix socket."""
    to: DestinationText
    """Where its connections go, if the lists of the enclave's CID allow it."""


class IngressRoute(Section, frozen=True):
    """Where TLS connections with one server name go; nothing of them is decrypted."""

    sni: PatternText
    """The name in the ClientHello, `*.name` (one label) or `**.name` (any depth)."""
    service: Name
    """The service's name in the enclave's file."""
    cid: ContextId | None = None
    """The enclave; by default each that offers the service."""
    name: Name | None = None
    """The enclave, or several, by the name in `enclaves`."""


class ParentIngress(Section, frozen=True):
    """A listener on the parent whose connections an enclave's service receives."""

    listen: TcpAddressText
    """Where the parent listens."""
    service: Name | None = None
    """The service's name in the enclave's file, for connections that no route is for."""
    cid: ContextId | None = None
    """The enclave; by default each that offers the service."""
    name: Name | None = None
    """The enclave, or several, by the name in `enclaves`."""
    proxy_protocol: ProxyProtocol = "none"
    """`v2` where clients are a balancer, which says in front of each connection whose it is."""
    routes: list[IngressRoute] = []
    """Services for TLS connections, by server name (SNI)."""
