"""The bounds of both configuration files, and the sections that both have."""

from typing import Annotated, ClassVar, Literal

import msgspec

from vsockproxy.config.field_types import AtOnce, PerSecond, Port, Ports, PositiveSeconds, Seconds
from vsockproxy.config.scalars import DestinationText, PatternText, Size

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
    "AllowRule",
    "DenyRule",
    "EnclaveLimits",
    "Limits",
    "Log",
    "Rate",
    "Section",
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

KMS_PORT = 4500
"""Where SDKs in the enclave find KMS, unless the file says otherwise."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every mapping of a configuration file: immutable, unknown keys are errors."""

    wanted: ClassVar[str] = ""
    """What to write for a value of another kind, where "a mapping" says too little."""


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
    connections: AtOnce | None = None
    """Connections of one enclave that may be open at once under this rule; else any number."""
    rate: PerSecond | None = None
    """Connections of one enclave that may be opened each second under this rule; else any."""


class DenyRule(Section, frozen=True):
    """One entry of a denylist; without `port` and `ports` it covers every port."""

    address: PatternText
    """A name, `*.name` (one label), `**.name` (any depth), an IP literal or a CIDR."""
    port: Port | None = None
    """One TCP port; a rule has at most one of this and `ports`."""
    ports: Ports | None = None
    """TCP ports and ranges of them."""


class Rate(Section, frozen=True):
    """How fast an enclave may open streams and ask for names; what is more is refused."""

    streams: PerSecond
    """New streams, and connections to raw ports, each second."""
    lookups: PerSecond | None = None
    """Questions for names each second; as many as `streams` unless it is written."""
    burst: AtOnce | None = None
    """Of each kind, how many may come at once after a quiet time; what one second allows unless
    it is written."""


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
    rate: Rate | None = None
    """How fast streams may be opened and names asked for; without it, as fast as it goes."""


class EnclaveLimits(Section, frozen=True):
    """Limits that differ for one enclave; the file's hold for what is not written here."""

    streams: Annotated[int, msgspec.Meta(ge=1, le=MAX_STREAMS)] | None = None
    """Streams that may be open at once."""
    rate: Rate | None = None
    """How fast it may open streams and ask for names."""


class Log(Section, frozen=True):
    """How lines are written to stderr."""

    format: Literal["auto", "text", "json"] = "auto"
    """`auto` is text on a terminal, else JSON lines."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important level that is written."""
