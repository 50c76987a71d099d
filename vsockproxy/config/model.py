"""The types of both configuration files; defaults and limits have their home here and in sections.

`load` turns YAML into these values, `schema` turns these types and their docstrings into JSON
Schemas. What a type cannot say (one key excludes another, two listeners collide) is in `rules`,
what its files hold in `vsockproxy.tls_files`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from vsockproxy.config.enclave_sections import (
    AcmeAuthority,
    Attestation,
    CertificateSource,
    Clock,
    Command,
    EnclaveCredentials,
    EnclaveForward,
    EnclaveIngress,
    EnclaveKms,
    EnclaveLog,
    Entropy,
    ForwardTls,
    IngressTls,
    Machine,
    Shim,
    SupervisedCommand,
)
from vsockproxy.config.field_types import Mode, Port, Seconds
from vsockproxy.config.parent_sections import (
    Admin,
    EnclaveEntry,
    IngressRoute,
    ParentAttestation,
    ParentCredentials,
    ParentForward,
    ParentIngress,
    ParentLog,
    Resolver,
    UpstreamProxy,
)
from vsockproxy.config.scalars import EndpointText, HostText, SourceAddressText
from vsockproxy.config.shared_sections import (
    BUDGET_RESERVE_BYTES,
    CREDENTIALS_PORT,
    CREDENTIALS_SOCKET,
    FIRST_ENCLAVE_CID,
    FIRST_WINDOW_BYTES,
    KIBIBYTE,
    KMS_PORT,
    LEAST_LOG_BUFFER_BYTES,
    MAX_NAMES_PORTS,
    MAX_SERVICES,
    MAX_STREAMS,
    MEBIBYTE,
    STREAM_SOCKET,
    AllowRule,
    DenyRule,
    EnclaveLimits,
    Limits,
    Log,
    Rate,
    Section,
)
from vsockproxy.nsm_locations import NSM_DEVICE, NSM_SOCKET_NAME, SOFTWARE_NSM

__all__ = (
    "BUDGET_RESERVE_BYTES",
    "CREDENTIALS_PORT",
    "CREDENTIALS_SOCKET",
    "FIRST_ENCLAVE_CID",
    "FIRST_WINDOW_BYTES",
    "KIBIBYTE",
    "KMS_PORT",
    "LEAST_LOG_BUFFER_BYTES",
    "MAX_NAMES_PORTS",
    "MAX_SERVICES",
    "MAX_STREAMS",
    "MEBIBYTE",
    "STREAM_SOCKET",
    "AcmeAuthority",
    "Admin",
    "AllowRule",
    "AnyConfig",
    "Attestation",
    "AwsAllowlist",
    "AwsRule",
    "CertificateSource",
    "Clock",
    "Command",
    "DenyRule",
    "EnclaveConfig",
    "EnclaveCredentials",
    "EnclaveEntry",
    "EnclaveForward",
    "EnclaveIngress",
    "EnclaveKms",
    "EnclaveLimits",
    "EnclaveLog",
    "Entropy",
    "ForwardTls",
    "IngressRoute",
    "IngressTls",
    "Limits",
    "Log",
    "Machine",
    "ParentAttestation",
    "ParentConfig",
    "ParentCredentials",
    "ParentForward",
    "ParentIngress",
    "ParentLog",
    "Rate",
    "Resolver",
    "Section",
    "Shim",
    "SupervisedCommand",
    "UpstreamProxy",
)


class ParentConfig(Section, frozen=True):
    """`parent.yaml`: what runs on the parent instance."""

    listen: Annotated[list[EndpointText], msgspec.Meta(min_length=1)]
    """Where enclaves connect: `vsock://any:PORT` or a unix socket; one of them or a list."""
    version: Literal[1] = 1
    """The version of this format."""
    allowlist: list[AllowRule] = []
    """What enclaves with a CID of 4 or more may reach; empty means nothing."""
    denylist: list[DenyRule] = []
    """What no enclave may reach, whatever an allowlist says."""
    mode: Mode = "enforce"
    """`report` lets pass, and logs, what is not listed; denylist and address guard stay."""
    mixed: Literal["refuse", "drop"] = "refuse"
    """A name with a forbidden address among others: refuse it, or dial the others."""
    require_tls: bool = False
    """Whether the first bytes of a stream must be a TLS ClientHello for the host asked for."""
    enclaves: list[EnclaveEntry] = []
    """What differs by CID, or by attested PCRs; CIDs 0-3 are refused unless they are here."""
    attestation: ParentAttestation = ParentAttestation()
    forwards: list[ParentForward] = []
    """Raw ports, as AWS's vsock-proxy offers."""
    ingress: list[ParentIngress] = []
    """Listeners for connections from outside to services of enclaves."""
    resolver: Resolver = Resolver()
    credentials: ParentCredentials | None = None
    """Credentials of the instance's role for enclaves; without it none gets them."""
    upstream_proxy: UpstreamProxy | None = None
    """The proxy that destinations are reached through; without it they are dialled directly."""
    source_address: Annotated[list[SourceAddressText], msgspec.Meta(min_length=1)] | None = None
    """What dialled sockets are bound to: an IPv4 address, an IPv6 address, or a list of both; a
    family without one is not dialled."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] | Literal["auto"] = 1
    """Worker processes; `auto` is one for each processor."""
    limits: Limits = Limits()
    drain: Seconds = 30.0
    """Seconds that open streams may take to end after SIGTERM."""
    forbidden_streams: Literal["end", "keep"] = "end"
    """What a reload does to open streams that the new lists forbid."""
    admin: Admin | None = None
    log: ParentLog = ParentLog()

    def wants_attestation(self, cid: int | None) -> bool:
        """Whether an enclave has to attest for an entry that could be for it.

        Entries behind one that is for it anyway do not count.
        """
        for entry in self.enclaves:
            if entry.could_be_for(cid):
                return bool(entry.pcrs)
        return False

    def entry_of(
        self, cid: int | None, pcrs: Mapping[int, bytes] | None = None
    ) -> tuple[int, EnclaveEntry] | None:
        """The entry for an enclave, and its place in the list; None if there is none.

        Args:
            cid: its CID; None if it is not known.
            pcrs: what it has attested; None if nothing.
        """
        return next((each for each in enumerate(self.enclaves) if each[1].is_for(cid, pcrs)), None)

    def limits_of(self, cid: int | None, pcrs: Mapping[int, bytes] | None = None) -> Limits:
        """The limits of an enclave; arguments are those of `entry_of`."""
        found = self.entry_of(cid, pcrs)
        return self.limits if found is None else self.limits_for(found[1])

    def limits_for(self, entry: EnclaveEntry) -> Limits:
        """The limits of the enclaves of an entry: the file's, but for those that it has itself."""
        own = {"streams": entry.limits.streams, "rate": entry.limits.rate}
        written = {name: value for name, value in own.items() if value is not None}
        return msgspec.structs.replace(self.limits, **written)


class EnclaveConfig(Section, frozen=True):
    """`enclave.yaml`: what runs inside the enclave; it is measured into the image."""

    parent: EndpointText
    """Where the parent listens: `vsock://3:PORT` or a unix socket."""
    version: Literal[1] = 1
    """The version of this format."""
    allowlist: list[AllowRule] = []
    """What programs may reach; empty means nothing."""
    denylist: list[DenyRule] = []
    """What programs may not reach, whatever the allowlist says."""
    mode: Mode = "enforce"
    """`report` lets pass, and logs, what is not listed; denylist and address guard stay."""
    require_tls: bool = True
    """Whether the first bytes of a stream must be a TLS ClientHello for the host asked for."""
    links: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    """Connections to the parent that streams are spread over."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] | Literal["auto"] = 1
    """Worker processes; `auto` is one for each processor."""
    shim: Shim = Shim()
    forwards: list[EnclaveForward] = []
    """Local ports with a fixed destination."""
    ingress: Annotated[list[EnclaveIngress], msgspec.Meta(max_length=MAX_SERVICES)] = []
    """Services that the parent may bring connections to."""
    credentials: EnclaveCredentials | None = None
    """Credentials of the parent instance's role, for programs that use AWS's SDKs."""
    kms: EnclaveKms | None = None
    """KMS with attestation, for programs that use AWS's SDKs; brings `credentials` with it."""
    attestation: Attestation | None = None
    """Where documents that say what runs here come from; without it, from /dev/nsm."""
    command: Command = Command()
    commands: list[SupervisedCommand] = []
    """Several commands under supervision, in place of the one on the command line."""
    machine: Machine = Machine()
    limits: Limits = Limits()
    log: EnclaveLog = EnclaveLog()

    @property
    def wanted_credentials(self) -> EnclaveCredentials | None:
        """`credentials`, or what KMS needs of it where the file has `kms` alone."""
        if self.credentials is None and self.kms is not None:
            return EnclaveCredentials()
        return self.credentials

    @property
    def has_software_nsm(self) -> bool:
        """Whether the file wants a module that proves nothing."""
        return self.attestation is not None and self.attestation.device == SOFTWARE_NSM

    @property
    def nsm_location(self) -> str:
        """Where the module is: the device, or the software module's socket."""
        if self.has_software_nsm:
            directory = (self.shim.streams or STREAM_SOCKET).rpartition("/")[0]
            return f"{directory}/{NSM_SOCKET_NAME}"
        return NSM_DEVICE if self.attestation is None else self.attestation.device


class AwsRule(Section, frozen=True):
    """One entry of AWS's vsock-proxy.yaml."""

    address: HostText
    """A name or an IP address."""
    port: Port
    """One TCP port."""


class AwsAllowlist(Section, frozen=True):
    """AWS's vsock-proxy.yaml: an allowlist and nothing else."""

    allowlist: list[AwsRule]
    """What may be connected to."""


AnyConfig = ParentConfig | EnclaveConfig | AwsAllowlist
"""The three kinds of file."""
