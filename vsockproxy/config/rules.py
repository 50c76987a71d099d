"""What the model's types cannot say: one key against another, one entry against the rest.

A section rule sees one section, and runs unless a field that it reads was reported already. A file
rule sees all sections, wherever they stand.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from typing import Any, Final

from vsockproxy.addresses import (
    ANY_CID,
    Endpoint,
    TcpAddress,
    UnixAddress,
    VsockAddress,
)
from vsockproxy.config.command_rules import check_commands
from vsockproxy.config.conversion import Found
from vsockproxy.config.entry_rules import check_entries
from vsockproxy.config.errors import Fault
from vsockproxy.config.field_types import MAX_SOCKET_PATH
from vsockproxy.config.ingress_rules import check_ingress
from vsockproxy.config.model import (
    BUDGET_RESERVE_BYTES,
    CREDENTIALS_SOCKET,
    FIRST_WINDOW_BYTES,
    KIBIBYTE,
    LEAST_LOG_BUFFER_BYTES,
    MAX_NAMES_PORTS,
    MEBIBYTE,
    Admin,
    AllowRule,
    DenyRule,
    EnclaveConfig,
    EnclaveCredentials,
    EnclaveForward,
    EnclaveKms,
    EnclaveLog,
    ForwardTls,
    Limits,
    ParentConfig,
    ParentCredentials,
    ParentForward,
    ParentIngress,
    Section,
    Shim,
)
from vsockproxy.config.patterns import AddressPattern, parse_pattern
from vsockproxy.config.ports import PortSpan, parse_range, rule_ports, subtract_ports
from vsockproxy.config.source import join_path

__all__ = ("check_sections",)

NAMES_BLOCK_PREFIXES: Final = range(8, 29)
"""Prefix lengths of `shim.names_block`: from 16 addresses on, and no more than a /8."""

_NOT_FOR_NAMES: Final = tuple(
    map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))
)
"""What cannot be routed, or means something else to programs, may not be given to names."""

LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
"""Where SDKs take credentials from without TLS."""

_Complaint = tuple[str, str, str]
"""A field of the section, what is wrong, what to write."""


@dataclass(frozen=True, slots=True)
class _SectionRule:
    reads: frozenset[str]
    check: Callable[[Any], Iterable[_Complaint]]


def check_sections(sections: Sequence[Found]) -> Iterator[Fault]:
    """Yield every breach of a rule, in no particular order."""
    for found in sections:
        for rule in _SECTION_RULES.get(type(found.section), ()):
            if rule.reads.isdisjoint(found.invalid):
                for name, what, mend in rule.check(found.section):
                    yield Fault(join_path(found.path, name) if name else found.path, what, mend)
    yield from check_entries(sections)
    yield from _check_credentials_sources(sections)
    yield from _check_listeners(sections)
    yield from _check_names_ports(sections)
    yield from check_ingress(sections)
    yield from check_commands(sections)


def _check_allow_ports(rule: AllowRule) -> Iterator[_Complaint]:
    if rule.port is None and rule.ports is None:
        yield "", "neither port nor ports", "add port: 443, or the ports that are needed"
    yield from _check_deny_ports(rule)


def _check_deny_ports(rule: AllowRule | DenyRule) -> Iterator[_Complaint]:
    if rule.port is not None and rule.ports is not None:
        yield "ports", "both port and ports", "write all of them in ports, and remove port"
    for index, item in enumerate(rule.ports or ()):
        if isinstance(item, str) and parse_range(item) is None:
            mend = "write LOW-HIGH with LOW not above HIGH, within 1-65535"
            yield f"ports[{index}]", f"{item!r} is no port range", mend


def _check_metadata(rule: AllowRule) -> Iterator[_Complaint]:
    pattern = parse_pattern(rule.address)
    is_metadata_literal = (
        isinstance(pattern, AddressPattern) and pattern.is_literal and pattern.is_metadata
    )
    if rule.metadata and not is_metadata_literal:
        what = f"{rule.address!r} is no single metadata address"
        yield "metadata", what, "write a rule with the address itself, as 169.254.169.254"
    if rule.private and not rule.metadata and is_metadata_literal:
        what = f"private does not open the metadata address {rule.address}"
        yield "private", what, "write metadata: true, if programs may have this instance's role"


def _check_budget(limits: Limits) -> Iterator[_Complaint]:
    least_bytes = limits.streams * FIRST_WINDOW_BYTES + BUDGET_RESERVE_BYTES
    if limits.receive_budget < least_bytes:
        least = f"{-(-least_bytes // MEBIBYTE)}MiB"
        what = f"too small for {limits.streams} streams"
        yield "receive_budget", what, f"write at least {least}, or fewer streams"


def _check_source_addresses(config: ParentConfig) -> Iterator[_Complaint]:
    first: dict[str, tuple[int, str]] = {}
    for index, address in enumerate(config.source_address or ()):
        version = "IPv6" if ":" in address else "IPv4"
        number, other = first.setdefault(version, (index, address))
        if number != index:
            what = f"{address} is a second {version} address, after {other}"
            yield f"source_address[{index}]", what, "write at most one of each version"


def _check_own_budgets(config: ParentConfig) -> Iterator[_Complaint]:
    """The file's budget has to do for the streams that an entry gives its enclave, too."""
    for index, entry in enumerate(config.enclaves):
        if entry.limits.streams is not None:
            for _, what, mend in _check_budget(config.limits_for(entry)):
                path = f"enclaves[{index}].limits.streams"
                yield path, f"limits.receive_budget is {what}", mend.replace("write", "write there")


def _check_log_buffer(log: EnclaveLog) -> Iterator[_Complaint]:
    if log.buffer < LEAST_LOG_BUFFER_BYTES:
        least = f"{LEAST_LOG_BUFFER_BYTES // KIBIBYTE}KiB"
        yield "buffer", "too small for a few long lines", f"write at least {least}"


def _check_parent_listen(config: ParentConfig) -> Iterator[_Complaint]:
    for path, endpoint in _parent_listeners(config):
        if isinstance(endpoint, TcpAddress):
            what = "enclaves cannot connect over TCP, and a link has no encryption of its own"
            yield path, what, "write vsock://any:PORT or unix:///PATH"


def _check_enclave_parent(config: EnclaveConfig) -> Iterator[_Complaint]:
    match config.parent:
        case TcpAddress():
            what = "a link over TCP has no encryption of its own"
            yield "parent", what, "write vsock://3:PORT or unix:///PATH"
        case VsockAddress(cid=cid, port=port) if cid == ANY_CID:
            yield "parent", "any is no CID to connect to", f"write vsock://3:{port}"


def _check_admin(admin: Admin) -> Iterator[_Complaint]:
    match admin.listen:
        case VsockAddress():
            what = "enclaves could connect to it"
            yield "listen", what, "write unix:///run/vsockproxy/admin.sock or tcp://127.0.0.1:PORT"
        case TcpAddress(host=host, port=port) if not _is_loopback(host):
            what = "it asks nobody who they are, and other machines could connect"
            yield (
                "listen",
                what,
                f"write unix:///run/vsockproxy/admin.sock or tcp://127.0.0.1:{port}",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_parent_forward(forward: ParentForward) -> Iterator[_Complaint]:
    if isinstance(forward.listen, TcpAddress):
        what = "a forward of the parent listens for enclaves, not on TCP"
        yield "listen", what, "write vsock://any:PORT or unix:///PATH"


def _check_enclave_forward(forward: EnclaveForward) -> Iterator[_Complaint]:
    if isinstance(forward.listen, VsockAddress):
        what = "a forward of the enclave listens for programs inside, not on vsock"
        yield "listen", what, "write tcp://127.0.0.1:PORT or unix:///PATH"


def _check_http_front(forward: EnclaveForward) -> Iterator[_Complaint]:
    if forward.protocol == "http" and not forward.tls:
        what = "protocol: http is for a destination that speaks https"
        yield "protocol", what, "add tls: true, or remove protocol"
    if forward.protocol == "http" and forward.carrier == "dedicated":
        what = "a forward with protocol: http has shared streams only"
        yield "carrier", what, "remove carrier"
    if forward.protocol == "http" and isinstance(forward.tls, ForwardTls) and forward.tls.alpn:
        what = "a forward with protocol: http speaks HTTP/1.1 to its destination"
        yield "tls.alpn", what, "remove alpn"


def _check_parent_credentials(credentials: ParentCredentials) -> Iterator[_Complaint]:
    if not isinstance(credentials.socket, UnixAddress):
        what = "whoever may connect there has the instance's role: only a unix socket says who"
        yield "socket", what, f"write unix://{CREDENTIALS_SOCKET}, or imds in place of socket"


def _check_credentials_sources(sections: Iterable[Found]) -> Iterator[Fault]:
    for found in sections:
        match found.section:
            case ParentCredentials(imds=str()) if "socket" in found.written:
                what = "both imds and socket"
                mend = "remove socket, and the parent asks imds itself; or remove imds"
                yield Fault(f"{found.path}.socket", what, mend)


def _check_enclave_credentials(credentials: EnclaveCredentials) -> Iterator[_Complaint]:
    if credentials.listen.host not in LOOPBACK_HOSTS:
        what = f"{credentials.listen.host} is no loopback address, and SDKs take no other"
        yield "listen", what, f"write 127.0.0.1:{credentials.listen.port}"


_BEYOND_PROXIES: Final = ("127.0.0.1", "localhost")
"""What NO_PROXY names in a way that botocore understands."""


def _check_kms(kms: EnclaveKms) -> Iterator[_Complaint]:
    if not _is_loopback(kms.listen.host):
        what = f"{kms.listen.host} is no loopback address, and plaintexts leave by it"
        yield "listen", what, f"write 127.0.0.1:{kms.listen.port}"
    elif kms.listen.host not in _BEYOND_PROXIES:
        what = f"SDKs that are told of an HTTP proxy send what is for {kms.listen.host} there"
        yield "listen", what, f"write 127.0.0.1:{kms.listen.port}"


def _check_services_way(config: EnclaveConfig) -> Iterator[_Complaint]:
    if config.credentials is not None and config.shim.streams is None:
        what = "credentials come over the stream socket, which shim.streams: null turns off"
        yield "credentials", what, "remove shim.streams: null"
    if config.kms is not None and config.shim.streams is None:
        what = "KMS is reached over the stream socket, which shim.streams: null turns off"
        yield "kms", what, "remove shim.streams: null"


def _check_nsm_socket(config: EnclaveConfig) -> Iterator[_Complaint]:
    if config.has_software_nsm:
        if config.nsm_location == config.shim.streams:
            what = f"{config.shim.streams} is the software NSM's socket"
            yield "shim.streams", what, "write another name"
        elif len(config.nsm_location) > MAX_SOCKET_PATH:
            what = f"no room for the software NSM's socket, {config.nsm_location}"
            yield "shim.streams", what, "write a path in a directory with a shorter name"


def _check_names_block(shim: Shim) -> Iterator[_Complaint]:
    block = IPv4Network(shim.names_block)
    if block.prefixlen not in NAMES_BLOCK_PREFIXES:
        first, last = NAMES_BLOCK_PREFIXES[0], NAMES_BLOCK_PREFIXES[-1]
        what = f"a block of {block.num_addresses} addresses"
        yield "names_block", what, f"write a network of /{first} to /{last}, as 198.18.0.0/15"
    elif any(block.overlaps(network) for network in _NOT_FOR_NAMES):
        what = f"programs cannot dial the addresses of {block}"
        yield "names_block", what, "write a network that nothing else uses, as 198.18.0.0/15"


_SECTION_RULES: Final[dict[type[Section], tuple[_SectionRule, ...]]] = {
    AllowRule: (
        _SectionRule(frozenset(("port", "ports")), _check_allow_ports),
        _SectionRule(frozenset(("address", "metadata", "private")), _check_metadata),
    ),
    DenyRule: (_SectionRule(frozenset(("port", "ports")), _check_deny_ports),),
    Limits: (_SectionRule(frozenset(("streams", "receive_budget")), _check_budget),),
    EnclaveLog: (_SectionRule(frozenset(("buffer",)), _check_log_buffer),),
    ParentConfig: (
        _SectionRule(frozenset(("listen",)), _check_parent_listen),
        _SectionRule(frozenset(("enclaves", "limits")), _check_own_budgets),
        _SectionRule(frozenset(("source_address",)), _check_source_addresses),
    ),
    EnclaveConfig: (
        _SectionRule(frozenset(("parent",)), _check_enclave_parent),
        _SectionRule(frozenset(("credentials", "kms", "shim")), _check_services_way),
        _SectionRule(frozenset(("attestation", "shim")), _check_nsm_socket),
    ),
    ParentForward: (_SectionRule(frozenset(("listen",)), _check_parent_forward),),
    EnclaveForward: (
        _SectionRule(frozenset(("listen",)), _check_enclave_forward),
        _SectionRule(frozenset(("tls", "protocol", "carrier")), _check_http_front),
    ),
    ParentCredentials: (_SectionRule(frozenset(("socket",)), _check_parent_credentials),),
    EnclaveCredentials: (_SectionRule(frozenset(("listen",)), _check_enclave_credentials),),
    EnclaveKms: (_SectionRule(frozenset(("listen",)), _check_kms),),
    Admin: (_SectionRule(frozenset(("listen",)), _check_admin),),
    Shim: (_SectionRule(frozenset(("names_block",)), _check_names_block),),
}


def _check_listeners(sections: Iterable[Found]) -> Iterator[Fault]:
    earlier: dict[int | str, list[tuple[str, Endpoint]]] = {}
    for path, endpoint in _listeners(sections):
        key = endpoint.path if isinstance(endpoint, UnixAddress) else endpoint.port
        alike = earlier.setdefault(key, [])
        for other_path, other in alike:
            if _collide(endpoint, other):
                what = f"{endpoint} is taken by {other_path}"
                yield Fault(path, what, "write another address or port")
                break
        alike.append((path, endpoint))


def _check_names_ports(sections: Sequence[Found]) -> Iterator[Fault]:
    """Names listens on each port of its rules; a rule that is too much is reported and left out."""
    kinds = {type(found.section) for found in sections}
    is_off = any(
        isinstance(each.section, Shim) and each.section.names is False for each in sections
    )
    if EnclaveConfig not in kinds or is_off:
        return
    taken: tuple[PortSpan, ...] = ()
    for found in sections:
        if not isinstance(found.section, AllowRule) or found.invalid & _READ_FOR_NAMES:
            continue
        ports = _names_ports(found.section)
        total = sum(high - low + 1 for low, high in (*taken, *subtract_ports(ports, taken)))
        if total <= MAX_NAMES_PORTS:
            taken = subtract_ports((*taken, *ports), ())
        else:
            what = f"names would listen on {total} different ports, {MAX_NAMES_PORTS} are possible"
            name = "port" if found.section.port is not None else "ports"
            mend = "add names: false to the rule, or write fewer ports"
            yield Fault(join_path(found.path, name), what, mend)


_READ_FOR_NAMES: Final = frozenset(("address", "port", "ports", "names"))


def _names_ports(rule: AllowRule) -> tuple[PortSpan, ...]:
    """The ports that names has to listen on for a rule; none for one that is wrong in itself."""
    if not rule.names or (rule.port is None) == (rule.ports is None):
        return ()
    pattern = parse_pattern(rule.address)
    if isinstance(pattern, AddressPattern) and pattern.is_loopback:
        return ()  # it leads nowhere but into the command's own namespace
    try:
        return rule_ports(rule.port, rule.ports)
    except ValueError:
        return ()


def _listeners(sections: Iterable[Found]) -> Iterator[tuple[str, Endpoint]]:
    """Yield whatever a file makes us listen on, defaults of the shim included."""
    for found in sections:
        match found.section:
            case ParentConfig() as config if "listen" not in found.invalid:
                yield from _parent_listeners(config)
            case (
                Admin()
                | ParentForward()
                | ParentIngress()
                | EnclaveForward()
                | EnclaveCredentials()
                | EnclaveKms() as entry
            ):
                if "listen" not in found.invalid:
                    yield f"{found.path}.listen", entry.listen
            case Shim() as shim:
                yield from _proxy_listeners(shim, found.invalid)
            case EnclaveConfig() as config:
                if "shim" not in found.written:
                    yield from _proxy_listeners(Shim(), frozenset())
                wanted = config.wanted_credentials
                if wanted is not None and "credentials" not in found.written:
                    yield "credentials.listen", wanted.listen


def _parent_listeners(config: ParentConfig) -> Iterator[tuple[str, Endpoint]]:
    for index, endpoint in enumerate(config.listen):
        yield "listen" if len(config.listen) == 1 else f"listen[{index}]", endpoint


def _proxy_listeners(shim: Shim, invalid: frozenset[str]) -> Iterator[tuple[str, Endpoint]]:
    streams = UnixAddress(shim.streams) if shim.streams is not None else None
    for name, endpoint in (
        ("http_proxy", shim.http_proxy),
        ("socks5", shim.socks5),
        ("streams", streams),
    ):
        if endpoint is not None and name not in invalid:
            yield f"shim.{name}", endpoint


def _collide(one: Endpoint, other: Endpoint) -> bool:
    """Say whether Linux refuses to bind one while the other is bound."""
    match one, other:
        case VsockAddress(), VsockAddress():
            return one.port == other.port and (
                one.cid == other.cid or ANY_CID in (one.cid, other.cid)
            )
        case UnixAddress(), UnixAddress():
            return one.path == other.path
        case TcpAddress(), TcpAddress():
            hosts = {
                "127.0.0.1" if item.host == "localhost" else item.host for item in (one, other)
            }
            return one.port == other.port != 0 and (
                len(hosts) == 1
                or "::" in hosts
                or ("0.0.0.0" in hosts and not any(":" in host for host in hosts))
            )
        case _:
            return False
