"""Every form of address that people write or peers send, parsed once into frozen values.

Three endpoints (where something listens, or where a link is dialled):

    vsock://CID:PORT  vsock://any:PORT
    unix:///path[?cid=N][&mode=0660]
    tcp://HOST:PORT  tcp://[V6]:PORT     HOST is an IP literal or localhost

and destinations (what a program asks for): `HOST:PORT`, `[V6]:PORT`.

Hosts are compared by equality of their normal form, so everything that two resolvers could read in
two ways is refused here: `0177.0.0.1`, `2130706433`, `127.1`, zone ids, doubled dots.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from vsockproxy.errors import VsockproxyError

__all__ = (
    "ANY_CID",
    "AddressError",
    "Destination",
    "Endpoint",
    "Host",
    "IpAddress",
    "TcpAddress",
    "UnixAddress",
    "VsockAddress",
    "format_authority",
    "format_ip",
    "normalise_host",
    "parse_destination",
    "parse_endpoint",
    "parse_tcp_address",
)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

ANY_CID: Final = 0xFFFF_FFFF
"""VMADDR_CID_ANY of include/uapi/linux/vm_sockets.h: bind on every CID this machine has."""

MAX_CID: Final = 0xFFFF_FFFE
MAX_VSOCK_PORT: Final = 0xFFFF_FFFE
"""One less than VMADDR_PORT_ANY, which asks the kernel for a port."""
MAX_TCP_PORT: Final = 65_535

MAX_NAME_BYTES: Final = 253
"""Longest name in text form without the trailing dot (RFC 1035, section 3.1: 255 on the wire)."""
MAX_LABEL_BYTES: Final = 63
MAX_PATH_BYTES: Final = 107
"""`sun_path` of sockaddr_un has 108 bytes, one of them the closing NUL (unix(7))."""
MAX_ENDPOINT_CHARACTERS: Final = 512

_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,9})", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.ASCII)
_NUMBER_LABEL = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_DOTS_THAT_IDNA_MAPS = "\u3002\uff0e\uff61"
"""Ideographic, fullwidth and halfwidth full stops (UTS #46, section 2.3)."""


class AddressError(VsockproxyError):
    """A text that is no address of the wanted kind.

    Args:
        what: what is wrong.
        mend: what to write instead; empty if there is nothing to suggest.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(f"{what}: {mend}" if mend else what)
        self.what = what
        self.mend = mend


@dataclass(frozen=True, slots=True)
class VsockAddress:
    """A vsock address; `cid` may be `ANY_CID` where something listens."""

    cid: int
    port: int

    def __str__(self) -> str:
        return f"vsock://{'any' if self.cid == ANY_CID else self.cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket that stands in for vsock.

    `cid` is the CID that peers of this listener have, `mode` the permission bits of the socket.
    """

    path: str
    cid: int | None = None
    mode: int | None = None

    def __str__(self) -> str:
        options = []
        if self.cid is not None:
            options.append(f"cid={self.cid}")
        if self.mode is not None:
            options.append(f"mode={self.mode:04o}")
        return f"unix://{self.path}{'?' if options else ''}{'&'.join(options)}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP address; `host` is a canonical literal without brackets, or `localhost`.

    Port 0 lets the kernel choose where something listens.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://{format_authority(self.host, self.port)}"


Endpoint = VsockAddress | UnixAddress | TcpAddress


@dataclass(frozen=True, slots=True)
class Host:
    """A host in normal form, so that equal hosts have equal text.

    `text` is a lower-case name in A-labels without a trailing dot, or a canonical literal without
    brackets; `address` is that literal's value, None for a name.
    """

    text: str
    address: IpAddress | None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Destination:
    """The host and TCP port that a stream asks for."""

    host: Host
    port: int

    def __str__(self) -> str:
        return format_authority(self.host.text, self.port)


def format_authority(host: str, port: int) -> str:
    """HOST:PORT, with an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def format_ip(address: IpAddress) -> str:
    """Write `address` canonically (RFC 5952), the same under every version of Python."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return f"::ffff:{address.ipv4_mapped}"  # str() writes hex groups before Python 3.13
    return str(address)


def parse_endpoint(text: str) -> Endpoint:
    """Parse `vsock://`, `unix://` or `tcp://`.

    Raises:
        AddressError: `text` is none of them.
    """
    _refuse_unprintable(text, MAX_ENDPOINT_CHARACTERS)
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme == "vsock":
            return _parse_vsock(rest)
        if scheme == "unix":
            return _parse_unix(rest)
        if scheme == "tcp":
            return _parse_tcp(rest)
    raise AddressError(
        f"{text!r} is no endpoint", "write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT"
    )


def parse_tcp_address(text: str) -> TcpAddress:
    """Parse `tcp://HOST:PORT`, or the same without the scheme.

    Raises:
        AddressError: it is neither, or HOST is neither an IP literal nor `localhost`.
    """
    _refuse_unprintable(text, MAX_ENDPOINT_CHARACTERS)
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "tcp":
        raise AddressError(f"{text!r} is no TCP address", "write tcp://ADDRESS:PORT")
    return _parse_tcp(rest if separator else text)


def parse_destination(text: str) -> Destination:
    """Parse `HOST:PORT` or `[V6]:PORT` and normalise the host; the port is 1-65535.

    Raises:
        AddressError: the form, the host or the port is wrong.
    """
    # Twice a name's length leaves room for U-labels and the port, and bounds what is quoted.
    _refuse_unprintable(text, 2 * MAX_NAME_BYTES)
    host, port = _split_port(text)
    if port == 0:
        raise AddressError("port 0 cannot be connected to", "write a port within 1-65535")
    return Destination(normalise_host(host), port)


def normalise_host(text: str) -> Host:
    """Bring a name or an IP literal (no brackets) into the one form that is compared.

    Names are lower-cased, mapped to A-labels (UTS #46, non-transitional) and lose one trailing
    dot; underscores are allowed. Literals become canonical (RFC 5952).

    Raises:
        AddressError: for everything that is ambiguous or malformed; see the module's text.
    """
    _refuse_unprintable(text, MAX_NAME_BYTES + 1)
    if text[0] == "[" or text[-1] == "]":
        raise AddressError(f"{text!r} has brackets", f"write {text.strip('[]')!r}")
    if ":" in text:
        return _normalise_ipv6(text)
    name = text.removesuffix(".")
    if not name.isascii():
        name = _to_a_labels(name)
    name = name.lower()
    if len(name) > MAX_NAME_BYTES:
        raise AddressError(f"a name of {len(name)} bytes is too long", "at most 253 are allowed")
    labels = name.split(".")
    for label in labels:
        _check_label(text, label)
    if _NUMBER_LABEL.fullmatch(labels[-1]):
        # The WHATWG URL standard's "ends in a number": whatever ends so is read as IPv4 by some
        # resolver, in octal, hexadecimal or short form, so only the canonical form passes.
        return _normalise_ipv4(text)
    return Host(name, None)


def _normalise_ipv4(text: str) -> Host:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise AddressError(
            f"{text!r} is no canonical IPv4 address",
            "write four decimal numbers within 0-255, without leading zeros",
        ) from None
    return Host(str(address), address)


def _normalise_ipv6(text: str) -> Host:
    if "%" in text:
        raise AddressError(f"{text!r} has a zone id", "write the address without it")
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise AddressError(
            f"{text!r} is neither a name nor an IPv6 address",
            "write a name, an IPv4 or an IPv6 address, without a port",
        ) from None
    return Host(format_ip(address), address)


def _to_a_labels(name: str) -> str:
    # Imported on demand: its tables are large, and an enclave may never need them.
    import idna

    for dot in _DOTS_THAT_IDNA_MAPS:
        if dot in name:
            raise AddressError(f"{name!r} has a look-alike of a dot", "write '.'")
    labels = []
    for label in name.split("."):
        if label.isascii():
            labels.append(label)
            continue
        try:
            mapped = idna.uts46_remap(label, std3_rules=True, transitional=False)
            ascii_label = mapped if mapped.isascii() else idna.alabel(mapped).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise AddressError(
                f"{label!r} is no label of an internationalised name", "write its A-label (xn--…)"
            ) from None
        if "." in ascii_label or _NUMBER_LABEL.fullmatch(ascii_label):
            raise AddressError(f"{label!r} stands for {ascii_label!r}", "write that in ASCII")
        labels.append(ascii_label)
    return ".".join(labels)


def _check_label(text: str, label: str) -> None:
    if not label:
        raise AddressError(f"{text!r} has an empty label", "write single dots between labels")
    if len(label) > MAX_LABEL_BYTES:
        raise AddressError(
            f"a label of {len(label)} bytes in {text!r} is too long", "at most 63 are allowed"
        )
    if not _LABEL.fullmatch(label):
        raise AddressError(
            f"{label!r} is no label of a host name",
            "use letters, digits, '_', and '-' inside a label",
        )


def _parse_vsock(rest: str) -> VsockAddress:
    cid_text, separator, port_text = rest.partition(":")
    if not separator:
        raise AddressError(f"'vsock://{rest}' has no port", "write vsock://CID:PORT")
    cid = ANY_CID if cid_text == "any" else _parse_cid(cid_text)
    return VsockAddress(cid, _parse_number("vsock port", port_text, 1, MAX_VSOCK_PORT))


def _parse_unix(rest: str) -> UnixAddress:
    path, _, query = rest.partition("?")
    if not path.startswith("/"):
        raise AddressError(f"{path!r} is no absolute path", f"write unix:///{path}")
    if path.endswith("/"):
        raise AddressError(f"{path!r} is a directory", "write the path of a socket")
    size_bytes = len(path.encode("utf-8", "surrogateescape"))
    if size_bytes > MAX_PATH_BYTES:
        raise AddressError(
            f"a socket path of {size_bytes} bytes is too long", f"at most {MAX_PATH_BYTES} fit"
        )
    options: dict[str, str] = {}
    for option in query.split("&") if query else []:
        key, _, value = option.partition("=")
        if key in options:
            raise AddressError(f"{key!r} is given twice", "write it once")
        if key not in ("cid", "mode"):
            raise AddressError(f"{key!r} is no option of a unix endpoint", "use cid=N or mode=0660")
        options[key] = value
    cid = _parse_cid(options["cid"]) if "cid" in options else None
    mode = _parse_mode(options["mode"]) if "mode" in options else None
    return UnixAddress(path, cid, mode)


def _parse_tcp(text: str) -> TcpAddress:
    host_text, port = _split_port(text)
    host = normalise_host(host_text)
    if host.address is None and host.text != "localhost":
        raise AddressError(
            f"{host_text!r} is no IP address", "write an IPv4 or IPv6 address, or localhost"
        )
    return TcpAddress(host.text, port)


def _split_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, separator, port_text = text[1:].partition("]:")
        if not separator:
            raise AddressError(f"{text!r} has no port", f"write [{text.strip('[]')}]:PORT")
        if ":" not in host:
            raise AddressError(f"{text!r} has brackets around a name", f"write {host}:{port_text}")
    else:
        if "/" in text:
            raise AddressError(f"{text!r} is no HOST:PORT", "write it without scheme and path")
        host, separator, port_text = text.rpartition(":")
        if not separator:
            raise AddressError(f"{text!r} has no port", f"write {text}:PORT")
        if ":" in host:
            if _is_ipv6(text) and not _is_ipv6(host):
                raise AddressError(f"{text!r} has no port", f"write [{text}]:PORT")
            raise AddressError(
                f"{text!r} has an IPv6 address without brackets", f"write [{host}]:{port_text}"
            )
    if not host:
        raise AddressError(f"{text!r} has no host", "write HOST:PORT")
    port = 0 if port_text == "0" else _parse_number("port", port_text, 1, MAX_TCP_PORT)
    return host, port


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _parse_cid(text: str) -> int:
    if text == str(ANY_CID):
        raise AddressError(f"{text} is the number of any CID", "write any")
    return _parse_number("CID", text, 0, MAX_CID)


def _parse_mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise AddressError(f"{text!r} is no file mode", "write three octal digits, as 0660")
    return int(text, 8)


def _parse_number(what: str, text: str, low: int, high: int) -> int:
    if not _DECIMAL.fullmatch(text) or not low <= int(text) <= high:
        raise AddressError(f"{text!r} is no {what}", f"write a decimal number within {low}-{high}")
    return int(text)


def _refuse_unprintable(text: str, most_characters: int) -> None:
    if not text:
        raise AddressError("the address is empty", "write one")
    if len(text) > most_characters:
        raise AddressError(
            f"an address of {len(text)} characters is too long", f"at most {most_characters}"
        )
    if not text.isprintable() or " " in text:
        raise AddressError(f"{text!r} has a space or a control character", "write it without")
