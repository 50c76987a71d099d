"""The sections of a parent's file (`model` has the file)."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from vsockproxy.addresses import UnixAddress
from vsockproxy.config.field_types import (
    ContextId,
    FilePath,
    InstanceId,
    Name,
    PcrIndex,
    PcrValue,
    PositiveSeconds,
    ProxyProtocol,
)
from vsockproxy.config.scalars import (
    AddressText,
    DestinationText,
    EndpointText,
    HostText,
    MetadataUrlText,
    NameServerText,
    PatternText,
    TcpAddressText,
    UnixSocketText,
)
from vsockproxy.config.shared_sections import (
    CREDENTIALS_SOCKET,
    FIRST_ENCLAVE_CID,
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
    "ParentAttestation",
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

    enclaves: Annotated[list[ContextId], msgspec.Meta(min_length=1)]
    """CIDs of the enclaves that get them."""
    imds: MetadataUrlText | None = None
    """`http://ADDRESS[:PORT]` of the instance metadata service, which a process of the parent asks;
    without it, `socket` is where they come from."""
    socket: UnixSocketText = UnixAddress(CREDENTIALS_SOCKET)
    """The unix socket on which `vsockproxy credentials` listens; not with `imds`."""


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


class ParentAttestation(Section, frozen=True):
    """How the documents of enclaves are verified, where `pcrs` of an entry demands them."""

    root: FilePath | None = None
    """A PEM file with the root certificates to trust, in place of AWS's (commercial partition)."""
    allow_debug: bool = False
    """Take enclaves in debug mode, which anybody on the parent can look into."""
    instance: InstanceId | None = None
    """The instance that an enclave has to be on; by default this one, where it says what it is (on
    EC2's Nitro instances it does)."""
    max_age: PositiveSeconds = 300.0
    """How far the time of a document may be from this machine's, in seconds."""
    timeout: PositiveSeconds = 30.0
    """Seconds that an enclave may take to show its document."""


class EnclaveEntry(Section, frozen=True):
    """What differs for some enclaves: its allowlist replaces the file's.

    It is for the enclave with `cid`, for those that attest `pcrs`, or, with both, for that which is
    and does both. The first entry that is for an enclave is the one that counts.
    """

    cid: ContextId | None = None
    """The enclave's context identifier (CID)."""
    pcrs: dict[PcrIndex, PcrValue] = {}
    """Measurements by number, all of which its attestation document has to have."""
    name: Name | None = None
    """What logs call it."""
    allowlist: list[AllowRule] = []
    """What it may reach, in place of the file's allowlist."""
    denylist: list[DenyRule] = []
    """What it may not reach, in addition to the file's denylist."""
    limits: EnclaveLimits = EnclaveLimits()

    @property
    def measurements(self) -> dict[int, bytes]:
        """The values of `pcrs`."""
        return {int(index): bytes.fromhex(value) for index, value in self.pcrs.items()}

    def could_be_for(self, cid: int | None) -> bool:
        """Whether it is for an enclave with `cid`, given the right PCRs; CIDs 0-3 have to be named.

        Args:
            cid: None for an enclave whose CID is not known, and that none of the file's is.
        """
        if self.cid is None:
            return cid is None or cid >= FIRST_ENCLAVE_CID
        return self.cid == cid

    def is_for(self, cid: int | None, pcrs: Mapping[int, bytes] | None) -> bool:
        """Whether it is for an enclave.

        Args:
            cid: as for `could_be_for`.
            pcrs: what it has attested; None if nothing.
        """
        if not self.could_be_for(cid):
            return False
        wanted = self.measurements
        return not wanted or (pcrs is not None and wanted.items() <= pcrs.items())


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
