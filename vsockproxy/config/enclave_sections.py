"""The sections of an enclave's file (`model` has the file)."""

from typing import ClassVar, Literal

from vsockproxy.addresses import TcpAddress
from vsockproxy.config.field_types import (
    AbsolutePath,
    AccountId,
    AlpnNames,
    ContactUrl,
    FilePath,
    HostName,
    HttpsUrl,
    Name,
    NsmDevice,
    Port,
    PositiveSeconds,
    ProxyProtocol,
    RegionName,
    Seconds,
    SettingName,
    SocketPath,
    SpkiPin,
    UserNumber,
    VariableName,
    Word,
)
from vsockproxy.config.scalars import (
    CapabilityText,
    DestinationText,
    EndpointText,
    EndpointUrlText,
    HostText,
    NetworkText,
    ServiceTargetText,
    Size,
    TcpAddressText,
)
from vsockproxy.config.shared_sections import (
    CREDENTIALS_PORT,
    KMS_PORT,
    MEBIBYTE,
    STREAM_SOCKET,
    Log,
    Section,
)
from vsockproxy.nsm_locations import NSM_DEVICE

__all__ = (
    "AcmeAuthority",
    "Attestation",
    "CertificateSource",
    "Clock",
    "Command",
    "EnclaveCredentials",
    "EnclaveForward",
    "EnclaveIngress",
    "EnclaveKms",
    "EnclaveLog",
    "Entropy",
    "ForwardTls",
    "IngressTls",
    "Machine",
    "Shim",
    "SupervisedCommand",
)


class EnclaveLog(Log, frozen=True):
    """How lines are written to stderr, and whether the parent gets them."""

    to_parent: bool | None = None
    """Whether the parent gets what the command writes to stdout and stderr, and our own log; by
    default where the machine is ours (PID 1, --take-over) and has no terminal."""
    buffer: Size = MEBIBYTE
    """Bytes of the log that are kept while the parent does not take them."""


class ForwardTls(Section, frozen=True):
    """TLS to the destination of a forward, from inside the enclave."""

    ca: FilePath | None = None
    """A PEM file of the authorities to trust, in place of the image's own."""
    pin_spki: list[SpkiPin] = []
    """Of the destination's key, the SHA-256 of its SubjectPublicKeyInfo in base64: one of these."""
    client_cert: FilePath | None = None
    """A PEM file with a certificate, its chain and its key, for a destination that wants one."""
    server_name: HostText | None = None
    """Whom to ask for and whose certificate to demand; by default the host of `to`."""
    alpn: AlpnNames = []
    """What the program speaks, for a destination that wants to be told: `[h2]` for gRPC."""


class EnclaveForward(Section, frozen=True):
    """A local listener in the enclave whose connections go to one destination."""

    listen: EndpointText
    """`tcp://127.0.0.1:PORT`, or a unix socket."""
    to: DestinationText
    """Where its connections go, if both sides' lists allow it."""
    carrier: Literal["shared", "dedicated"] = "shared"
    """`dedicated` gives each connection a vsock connection of its own."""
    tls: bool | ForwardTls = False
    """Whether the enclave's side speaks TLS to the destination, for a program that does not; as a
    section, whom to trust and what to present."""
    protocol: Literal["tcp", "http"] = "tcp"
    """`http`: programs speak plain HTTP/1.1 here, and requests get the destination's Host."""


class AcmeAuthority(Section, frozen=True):
    """An authority that issues certificates by ACME (RFC 8555), with http-01 as the proof."""

    directory: HttpsUrl
    """Its directory. Both allowlists have to let the enclave reach its host; to name it here is to
    agree to its terms of service."""
    contact: ContactUrl | None = None
    """Whom the authority may write to, as `mailto:ops@example.com`."""
    ca: FilePath | None = None
    """A file of the image with the roots, in PEM, that the authority's own server is verified
    against; by default those of the image."""


class CertificateSource(Section, frozen=True):
    """Where a service's certificate comes from, if we do not make it."""

    wanted: ClassVar[str] = "{chain: FILE, key: FILE} or {acme: {directory: URL}}"

    chain: FilePath | None = None
    """A file of the image: the certificate, then its issuers', in PEM."""
    key: FilePath | None = None
    """A file of the image: the private key, in PEM. Whoever has the image can read it."""
    acme: AcmeAuthority | None = None
    """In place of files: issued by an authority, for `tls.names`, to a key that is made in the
    enclave and never leaves it; and renewed with a third of its time left."""


class IngressTls(Section, frozen=True):
    """How TLS of a service's connections ends in the enclave."""

    certificate: Literal["self_signed"] | CertificateSource = "self_signed"
    """`self_signed` for a key that is made in the enclave and never leaves it."""
    names: list[HostText] = []
    """Names and addresses of the service, for the certificate; without any, `service`."""
    client_ca: FilePath | None = None
    """A file of the image with the certificates, in PEM, of those who issue clients' certificates:
    with it, a client without such a one is refused."""
    attestation: bool = True
    """Whether GET /.well-known/attestation, as a connection's first request, is answered with an
    attestation document of the certificate's key."""
    alpn: AlpnNames = []
    """What the service speaks, the best first, for clients that ask: `[h2]` for gRPC. Without it,
    and for a client that knows none of these, nothing is agreed on."""


class EnclaveIngress(Section, frozen=True):
    """A service of the enclave that the parent may bring connections to."""

    service: Name
    """The service's name, which the parent's file names too."""
    to: ServiceTargetText
    """Where it listens: `tcp://127.0.0.1:PORT` or a unix socket. `streams` for a program that
    listens with vsockproxy.client. `acme` for what answers the challenges of authorities; the
    parent's listener for it is port 80."""
    proxy_protocol: ProxyProtocol = "none"
    """`v2` tells the service in front of each connection whose it is."""
    tls: IngressTls | None = None
    """Ends TLS in the enclave, in front of the service; without it, bytes pass as they are."""


class EnclaveCredentials(Section, frozen=True):
    """Where programs in the enclave find the credentials of the parent instance's role."""

    listen: TcpAddressText = TcpAddress("127.0.0.1", CREDENTIALS_PORT)
    """The endpoint that AWS_CONTAINER_CREDENTIALS_FULL_URI names, on loopback."""
    imds: bool = False
    """Whether 169.254.169.254:80 answers too, for programs that know nothing else (IMDSv2)."""
    region: RegionName | None = None
    """What AWS_REGION says; without it, the region that the parent names."""


class EnclaveKms(Section, frozen=True):
    """KMS for unmodified SDKs: their calls get attestation documents, and answers are opened."""

    listen: TcpAddressText = TcpAddress("127.0.0.1", KMS_PORT)
    """The endpoint that AWS_ENDPOINT_URL_KMS names, on loopback."""
    endpoints: dict[RegionName, EndpointUrlText] = {}
    """What is asked for a region in place of AWS's own endpoint: `https://HOST[:PORT]`."""
    ca: FilePath | None = None
    """A PEM file with the roots for KMS's certificate; by default those of the image's system."""
    fips: bool = False
    """Whether AWS's own endpoints are those with cryptography after FIPS 140 (kms-fips)."""
    accounts: list[AccountId] = []
    """AWS accounts whose keys may be used; empty for any, so also for one of whoever hands out the
    credentials."""


class Attestation(Section, frozen=True):
    """The Nitro Secure Module (NSM), which says what runs here."""

    device: NsmDevice = NSM_DEVICE
    """The module's device. `software` for development and tests: a module that proves nothing."""
    root: FilePath | None = None
    """A PEM file. With `software`: certificate and key of its root, made where absent; without it,
    every start makes a new one. With a device: the root that its documents lead to, in place of
    AWS's; nothing in an enclave verifies them."""


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
