"""The types of both configuration files; defaults and limits have their home here.

`load` turns YAML into these values, `schema` turns these types and their docstrings into JSON
Schemas. What a type cannot say (one key excludes another, two listeners collide) is in `rules`,
what is in the schema and not built yet in `unbuilt`.
"""

from typing import Annotated, Literal

import msgspec

from vsockproxy.addresses import TcpAddress, UnixAddress
from vsockproxy.config.field_types import (
    AbsolutePath,
    ContextId,
    HostName,
    Mode,
    Name,
    Port,
    Ports,
    PositiveSeconds,
    ProxyProtocol,
    RegionName,
    Seconds,
    SettingName,
    SocketPath,
    UserNumber,
    VariableName,
    Word,
)
from vsockproxy.config.scalars import (
    AddressText,
    CapabilityText,
    DestinationText,
    EndpointText,
    HostText,
    NameServerText,
    NetworkText,
    PatternText,
    ServiceTargetText,
    Size,
    TcpAddressText,
)

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE

MAX_STREAMS = 65_536
"""Most streams that `limits.streams` may allow for one enclave."""

FIRST_WINDOW_BYTES = 16 * KIBIBYTE
"""Credit each stream starts with; `receive_budget` has to cover it for every stream."""

LEAST_LOG_BUFFER_BYTES = 64 * KIBIBYTE
"""The least that `log.buffer` of an enclave may be."""

BUDGET_RESERVE_BYTES = 16 * MEBIBYTE
"""What `receive_budget` must exceed `streams * FIRST_WINDOW_BYTES` by, so that windows can grow."""

MAX_NAMES_PORTS = 256
"""Different ports that the names way in listens on, over all rules without `names: false`."""

MAX_SERVICES = 32
"""Services that an enclave may offer; their names stand in each hello (session/messages.cddl)."""

FIRST_ENCLAVE_CID = 4
"""Lower CIDs are the hypervisor, loopback, the host and, for Nitro, the parent (vsock(7))."""

STREAM_SOCKET = "/run/vsockproxy/streams.sock"
"""Where the stream socket is unless the file says otherwise."""

CREDENTIALS_SOCKET = "/run/vsockproxy-credentials/credentials.sock"
"""Where `vsockproxy credentials` listens unless told otherwise."""

CREDENTIALS_PORT = 3129
"""Where programs in the enclave find credentials, unless the file says otherwise."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every mapping of a configuration file: immutable, unknown keys are errors."""


class AllowRule(Section, frozen=True):
    """One entry of an allowlist (design: Policy)."""

    address: PatternText
    """A name, `*.name` (one label), `**.name` (any depth), an IP literal or a CIDR."""
    port: Port | None = None
    """One TCP port; a rule has this or `ports`."""
    ports: Ports | None = None
    """TCP ports and ranges of them."""
    private: bool = False
    """Opens RFC 1918, ULA, CGNAT and loopback addresses for this rule."""
    metadata: bool = False
    """Opens link-local and metadata addresses, for a rule that is that literal."""
    dial: DestinationText | None = None
    """Dialled instead; the program, SNI and Host keep the rule's name."""
    require_tls: bool | None = None
    """Overrides the file's `require_tls` for this rule."""
    names: bool = True
    """False keeps this rule out of the names way in (its listeners are limited to 256 ports)."""


class DenyRule(Section, frozen=True):
    """One entry of a denylist; without `port` and `ports` it covers every port."""

    address: PatternText
    """A name, `*.name` (one label), `**.name` (any depth), an IP literal or a CIDR."""
    port: Port | None = None
    """One TCP port; a rule has at most one of this and `ports`."""
    ports: Ports | None = None
    """TCP ports and ranges of them."""


class Limits(Section, frozen=True):
    """Limits of one enclave; seconds and bytes."""

    streams: Annotated[int, msgspec.Meta(ge=1, le=MAX_STREAMS)] = 16_384
    """Streams that may be open at once."""
    receive_budget: Size = 512 * MEBIBYTE
    """Bytes of credit that may be granted at once, over all streams of an enclave."""
    dedicated: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 64
    """Dedicated streams that may be open at once."""
    link_wait: Seconds = 3.0
    """Seconds that a new stream waits for a link."""
    connect: PositiveSeconds = 10.0
    """Seconds for a connection to a destination to be made."""
    handshake: PositiveSeconds = 10.0
    """Seconds for the first bytes of a TLS handshake to come."""
    half_closed: PositiveSeconds = 300.0
    """Seconds that a stream may stay open in one direction only."""
    idle: Seconds = 0.0
    """Seconds that a stream may stay without a byte; 0 means no limit."""

    def share_of(self, workers: int) -> "Limits":
        """What one of several workers may use of an enclave's streams and budget, rounded up."""
        return msgspec.structs.replace(
            self,
            streams=-(-self.streams // workers),
            receive_budget=-(-self.receive_budget // workers),
        )


class Log(Section, frozen=True):
    """How lines are written to stderr."""

    format: Literal["auto", "text", "json"] = "auto"
    """`auto` is text on a terminal, else JSON lines."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important level that is written."""


class ParentLog(Log, frozen=True):
    """How lines are written to stderr, those of enclaves among them."""

    enclave_lines: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1000
    """Lines of its log that one enclave may have written here in a second; 0 means no limit."""


class EnclaveLog(Log, frozen=True):
    """How lines are written to stderr, and whether the parent gets them."""

    to_parent: bool | None = None
    """Whether the parent gets what the command writes to stdout and stderr, and our own log; by
    default where the machine is ours (PID 1, --take-over) and has no terminal."""
    buffer: Size = MEBIBYTE
    """Bytes of the log that are kept while the parent does not take them."""


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


class EnclaveForward(Section, frozen=True):
    """A local listener in the enclave whose connections go to one destination."""

    listen: EndpointText
    """`tcp://127.0.0.1:PORT`, or a unix socket."""
    to: DestinationText
    """Where its connections go, if both sides' lists allow it."""
    carrier: Literal["shared", "dedicated"] = "shared"
    """`dedicated` gives each connection a vsock connection of its own."""
    tls: bool = False
    """Whether the enclave's side speaks TLS to the destination on the program's behalf."""


class EnclaveIngress(Section, frozen=True):
    """A service of the enclave that the parent may bring connections to."""

    service: Name
    """The service's name, which the parent's file names too."""
    to: ServiceTargetText
    """Where it listens: `tcp://127.0.0.1:PORT` or a unix socket. `streams` for a program that
    listens with vsockproxy.client."""
    proxy_protocol: ProxyProtocol = "none"
    """`v2` tells the service in front of each connection whose it is."""


class EnclaveCredentials(Section, frozen=True):
    """Where programs in the enclave find the credentials of the parent instance's role."""

    listen: TcpAddressText = TcpAddress("127.0.0.1", CREDENTIALS_PORT)
    """The endpoint that AWS_CONTAINER_CREDENTIALS_FULL_URI names, on loopback."""
    imds: bool = False
    """Whether 169.254.169.254:80 answers too, for programs that know nothing else (IMDSv2)."""
    region: RegionName | None = None
    """What AWS_REGION says; without it, the region that the parent names."""


class Shim(Section, frozen=True):
    """The ways in for unmodified programs."""

    names: bool = True
    """Whether names of the allowlist resolve to local addresses that lead to them."""
    names_block: NetworkText = "198.18.0.0/15"
    """The IPv4 network that these addresses are taken from."""
    http_proxy: TcpAddressText | None = TcpAddress("127.0.0.1", 3128)
    """Where the HTTP proxy listens; null turns it off."""
    socks5: TcpAddressText | None = None
    """Where the SOCKS5 proxy listens; null turns it off."""
    streams: SocketPath | None = STREAM_SOCKET
    """The stream socket, for programs that use vsockproxy.client; null turns it off."""
    environment: bool | None = None
    """Whether the command gets proxy variables; by default when the HTTP proxy is the way in."""


class Command(Section, frozen=True):
    """How the user's command runs."""

    user: Name | UserNumber | None = None
    """The user it runs as, by the name or number in the machine's passwd file."""
    capabilities: list[CapabilityText] = []
    """Capabilities that it keeps, as NET_BIND_SERVICE; none by default, for root neither."""
    vsock: Literal["deny", "allow"] = "deny"
    """Whether it may open vsock sockets of its own, past the allowlist; io_uring goes with it."""
    stop_grace: PositiveSeconds = 10.0
    """Seconds that it may go on after SIGTERM; then it is killed."""


class Entropy(Section, frozen=True):
    """Where the kernel's random numbers come from; without what is written here nothing starts."""

    source: Name | None = None
    """What the kernel's hardware generator (hw_random/rng_current) must be, as nsm-hwrng."""
    seed: bool = False
    """Whether random bytes of the Nitro Secure Module are added, and credited, before the start."""


class Clock(Section, frozen=True):
    """How the machine's clock is set; it never goes backwards."""

    source: Literal["parent", "ptp"]
    """Who is asked: the parent, which nobody needs to trust, or the hypervisor by /dev/ptp0."""
    max_step: PositiveSeconds = 60.0
    """Seconds that the clock may be put forward at the start; more is refused."""
    interval: Seconds = 300.0
    """Seconds between two looks at the source; 0 looks at the start only."""


class Machine(Section, frozen=True):
    """The machine, where it is ours: as PID 1, or with --take-over."""

    hostname: HostName | None = None
    """What the machine is called; by default its name stays."""
    entropy: Entropy = Entropy()
    clock: Clock | None = None
    heartbeat: Literal["auto", "on", "off"] = "auto"
    """Whether nitro-cli is told that the enclave is up; `auto` does as PID 1 of an enclave."""
    at_end: Literal["reboot", "power_off", "exit"] = "reboot"
    """What PID 1 does when all is over; an enclave ends by a reboot. In a container it exits."""
    sysctls: dict[SettingName, int | Word] = {}
    """Settings of the kernel, in addition to those for many connections, or in their place."""


class SupervisedCommand(Section, frozen=True):
    """One of several commands; what it leaves out of the fence is as in `command`."""

    name: Name
    """What logs and `after` call it."""
    run: list[Word]
    """The program, looked up in PATH, and its arguments."""
    after: list[Name] = []
    """The commands that have to be ready before it starts; it is stopped before they are."""
    ready: Port | Literal["started", "finished"] = "started"
    """When it is ready: when it runs, has ended with 0, or listens on that TCP port."""
    restart: Literal["never", "on-failure", "always"] = "never"
    """Whether it is started again when it has ended."""
    essential: bool = False
    """Whether the machine ends when it has ended for good, with its status."""
    user: Name | UserNumber | None = None
    """The user it runs as."""
    capabilities: list[CapabilityText] | None = None
    """Capabilities that it keeps."""
    vsock: Literal["deny", "allow"] | None = None
    """Whether it may open vsock sockets of its own, past the allowlist; io_uring goes with it."""
    environment: dict[VariableName, Word] = {}
    """Variables, in addition to ours."""
    working_directory: AbsolutePath | None = None
    """Where it starts; by default where we did."""
    stop_grace: PositiveSeconds | None = None
    """Seconds that it may go on after SIGTERM; then it and its process group are killed."""


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
    """What differs by CID; CIDs 0-3 are refused unless they are here."""
    forwards: list[ParentForward] = []
    """Raw ports, as AWS's vsock-proxy offers."""
    ingress: list[ParentIngress] = []
    """Listeners for connections from outside to services of enclaves."""
    resolver: Resolver = Resolver()
    credentials: ParentCredentials | None = None
    """Credentials of the instance's role for enclaves; without it none gets them."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] | Literal["auto"] = 1
    """Worker processes; `auto` is one for each processor."""
    limits: Limits = Limits()
    drain: Seconds = 30.0
    """Seconds that open streams may take to end after SIGTERM."""
    forbidden_streams: Literal["end", "keep"] = "end"
    """What a reload does to open streams that the new lists forbid."""
    admin: Admin | None = None
    log: ParentLog = ParentLog()


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
    command: Command = Command()
    commands: list[SupervisedCommand] = []
    """Several commands under supervision, in place of the one on the command line."""
    machine: Machine = Machine()
    limits: Limits = Limits()
    log: EnclaveLog = EnclaveLog()


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
