"""The values that YAML writes as text and the model holds parsed, as msgspec sees them.

msgspec would read a dataclass from a mapping, so each of these fields is annotated with a class
of this module: to a type checker an alias of the value's type, at run time a class that msgspec
does not know and hands to `decode_scalar`. The values count as its instances (`ABC.register`).
"""

import difflib
import ipaddress
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from vsockproxy.addresses import (
    AddressError,
    Destination,
    Endpoint,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    normalise_host,
    parse_destination,
    parse_endpoint,
    parse_tcp_address,
)
from vsockproxy.config.capabilities import CAPABILITIES
from vsockproxy.config.endpoint_url import parse_endpoint_url
from vsockproxy.config.metadata_address import METADATA_URL, parse_metadata_url
from vsockproxy.config.patterns import parse_pattern

__all__ = (
    "AddressText",
    "CapabilityText",
    "DestinationText",
    "EndpointText",
    "EndpointUrlText",
    "HostText",
    "MetadataUrlText",
    "NameServerText",
    "NetworkText",
    "PatternText",
    "Scalar",
    "ServiceTargetText",
    "Size",
    "SourceAddressText",
    "TcpAddressText",
    "UnixSocketText",
    "decode_scalar",
    "scalar_schema",
)

MAX_SIZE_BYTES = 1024**4
TO_STREAMS = "streams"
"""A service whose connections go to whoever listens for it on the stream socket."""
TO_ACME = "acme"
"""A service whose connections go to our own process of services, which answers challenges."""

_SIZE = re.compile(r"([0-9]{1,13})(?: ?(KiB|MiB|GiB))?", re.ASCII)
_WRONG_SIZE_UNIT = re.compile(r"([0-9]{1,13}) ?([kmg])(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNIT_BYTES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class Scalar(ABC):
    """A value with a text form of its own."""

    wanted: ClassVar[str]
    """What to write, for a value of another kind."""
    examples: ClassVar[tuple[str | int, ...]]
    """For the JSON Schema."""
    values: ClassVar[tuple[type, ...]] = (str,)
    """What `parse` makes of the text."""
    may_be_integer: ClassVar[bool] = False
    """Whether an integer stands for the same digits as text."""

    @staticmethod
    @abstractmethod
    def parse(text: str) -> object:
        """Turn the text into the value; raises AddressError."""


def decode_scalar(wanted_type: type, value: Any) -> Any:
    """Parse one value; msgspec's `dec_hook`.

    Raises:
        AddressError: the value is not of the wanted form.
    """
    if not issubclass(wanted_type, Scalar):
        raise TypeError(f"{wanted_type!r} is no type of a configuration file")
    if wanted_type.may_be_integer and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise AddressError(f"{describe_value(value)} is no text", f"write {wanted_type.wanted}")
    return wanted_type.parse(value)


def scalar_schema(wanted_type: type) -> dict[str, Any]:
    """Describe a scalar type to JSON Schema; msgspec's `schema_hook`."""
    if not issubclass(wanted_type, Scalar):
        raise TypeError(f"{wanted_type!r} is no type of a configuration file")
    json_type = ["integer", "string"] if wanted_type.may_be_integer else "string"
    return {"type": json_type, "examples": list(wanted_type.examples)}


def describe_value(value: object) -> str:
    """Name a YAML value in words an operator knows, in bounded length."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 80 else f"{value[:80]}…")
        case int() | float():
            return str(value)
        case list():
            return "a list"
        case _:
            return "a mapping"


def _parse_destination(text: str) -> Destination:
    destination = parse_destination(text)
    _demand_normal_form(text, str(destination))
    return destination


def _parse_pattern(text: str) -> str:
    return str(parse_pattern(text))


def _parse_host(text: str) -> str:
    if "*" in text or "/" in text:
        raise AddressError(
            f"{describe_value(text)} is a pattern, where one host has to stand",
            "write each host, or use the allowlist of a parent's or an enclave's file",
        )
    host = normalise_host(text)
    _demand_normal_form(text, host.text)
    return text


def _parse_metadata_url(text: str) -> str:
    parse_metadata_url(text)
    return text


def _parse_endpoint_url(text: str) -> str:
    parse_endpoint_url(text)
    return text


def _parse_address(text: str) -> str:
    if normalise_host(text).address is None:
        raise AddressError(f"{text!r} is no IP address", "write an IPv4 or IPv6 address")
    return _parse_host(text)


def _parse_source_address(text: str) -> str:
    address = ipaddress.ip_address(_parse_address(text))
    kinds = {
        "no address of its own": address.is_unspecified,
        "a multicast address": address.is_multicast,
        "the broadcast address": text == "255.255.255.255",
        "an IPv4 address in IPv6 form": getattr(address, "ipv4_mapped", None) is not None,
        "a link-local address, which means nothing without an interface": (
            address.version == 6 and address.is_link_local
        ),
    }
    for kind, is_of_kind in kinds.items():
        if is_of_kind:
            raise AddressError(
                f"{text} is {kind}", "write an address that one of this machine's interfaces has"
            )
    return text


def _parse_name_server(text: str) -> str:
    is_bare_ipv6 = not text.startswith("[") and text.count(":") > 1
    if ":" not in text or is_bare_ipv6:
        return _parse_address(text)
    if _parse_destination(text).host.address is None:
        raise AddressError(f"{text!r} is no IP address", "write ADDRESS or ADDRESS:PORT")
    return text


def _parse_unix_socket(text: str) -> Endpoint:
    if text.startswith(("unix://", "vsock://", "tcp://")):
        return parse_endpoint(text)
    mend = "write unix:///PATH"
    if text.startswith("/"):
        with suppress(AddressError):
            mend = f"write {parse_endpoint(f'unix://{text}')}"
    raise AddressError(f"{describe_value(text)} is no unix socket", mend)


def _parse_network(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        raise AddressError(
            f"{describe_value(text)} is no IPv4 network", "write one as 198.18.0.0/15"
        ) from None
    _demand_normal_form(text, str(network))
    return text


def _parse_capability(text: str) -> str:
    name = text.upper().removeprefix("CAP_")
    if name in CAPABILITIES:
        _demand_normal_form(text, name)
        return name
    close = difflib.get_close_matches(name[:80], CAPABILITIES, n=1)
    raise AddressError(
        f"{describe_value(text)} is no capability",
        f"write {close[0]}" if close else "write one of capabilities(7), without CAP_",
    )


def _parse_service_target(text: str) -> Endpoint | str:
    return text if text in (TO_STREAMS, TO_ACME) else parse_endpoint(text)


def _parse_size(text: str) -> int:
    if not (found := _SIZE.fullmatch(text)):
        if wrong := _WRONG_SIZE_UNIT.fullmatch(text):
            raise AddressError(
                f"{text!r} has an unknown unit", f"write {wrong[1]}{wrong[2].upper()}iB"
            )
        raise AddressError(
            f"{describe_value(text)} is no size", "write a number of bytes, or one with KiB or MiB"
        )
    size_bytes = int(found[1]) * _UNIT_BYTES[found[2] or ""]
    if size_bytes > MAX_SIZE_BYTES:
        raise AddressError(f"{text!r} is too much", "write a size of at most 1024GiB")
    return size_bytes


def _demand_normal_form(text: str, normal_form: str) -> None:
    if text != normal_form:
        raise AddressError(f"{describe_value(text)} is not in normal form", f"write {normal_form}")


if TYPE_CHECKING:
    EndpointText = Endpoint
    TcpAddressText = TcpAddress
    UnixSocketText = Endpoint
    DestinationText = Destination
    PatternText = str
    HostText = str
    MetadataUrlText = str
    EndpointUrlText = str
    AddressText = str
    SourceAddressText = str
    NameServerText = str
    ServiceTargetText = Endpoint | str
    NetworkText = str
    CapabilityText = str
    Size = int
else:

    class EndpointText(Scalar):
        """`vsock://`, `unix://` or `tcp://`."""

        wanted = "vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT"
        examples = ("vsock://any:5000", "unix:///run/app.sock?mode=0660", "tcp://127.0.0.1:8080")
        values = (VsockAddress, UnixAddress, TcpAddress)
        parse = staticmethod(parse_endpoint)

    class TcpAddressText(Scalar):
        """`ADDRESS:PORT`, with or without `tcp://`."""

        wanted = "ADDRESS:PORT"
        examples = ("127.0.0.1:3128", "tcp://[::1]:3128")
        values = (TcpAddress,)
        parse = staticmethod(parse_tcp_address)

    class UnixSocketText(Scalar):
        """`unix://`; that it is no other endpoint, a rule checks, which knows why."""

        wanted = "unix:///PATH"
        examples = ("unix:///run/app.sock",)
        values = (VsockAddress, UnixAddress, TcpAddress)
        parse = staticmethod(_parse_unix_socket)

    class DestinationText(Scalar):
        """`HOST:PORT`, with the host in normal form."""

        wanted = "HOST:PORT"
        examples = ("db.example:5432", "[2001:db8::1]:443")
        values = (Destination,)
        parse = staticmethod(_parse_destination)

    class PatternText(Scalar):
        """The address of a rule, kept as text; `patterns.parse_pattern` reads it."""

        wanted = "a name, *.NAME, **.NAME, an IP address or a CIDR"
        examples = ("kms.eu-west-1.amazonaws.com", "*.s3.eu-west-1.amazonaws.com", "10.20.0.0/16")
        parse = staticmethod(_parse_pattern)

    class HostText(Scalar):
        """A name or an IP literal in normal form."""

        wanted = "a name or an IP address"
        examples = ("kms.eu-west-1.amazonaws.com",)
        parse = staticmethod(_parse_host)

    class MetadataUrlText(Scalar):
        """The URL of an instance metadata service, kept as text; `parse_metadata_url` reads it."""

        wanted = METADATA_URL
        examples = (METADATA_URL, "http://127.0.0.1:1338")
        parse = staticmethod(_parse_metadata_url)

    class EndpointUrlText(Scalar):
        """The URL of a service of AWS, kept as text; `parse_endpoint_url` reads it."""

        wanted = "https://HOST or https://HOST:PORT"
        examples = ("https://vpce-0a1b-kms.eu-west-1.vpce.amazonaws.com",)
        parse = staticmethod(_parse_endpoint_url)

    class AddressText(Scalar):
        """An IP literal in normal form."""

        wanted = "an IPv4 or IPv6 address"
        examples = ("127.0.0.1", "::1")
        parse = staticmethod(_parse_address)

    class SourceAddressText(Scalar):
        """An IP literal that a socket can be bound to and connect from."""

        wanted = "an address of this machine"
        examples = ("10.0.0.5", "2001:db8::5")
        parse = staticmethod(_parse_source_address)

    class NameServerText(Scalar):
        """`ADDRESS` or `ADDRESS:PORT` of a DNS server."""

        wanted = "ADDRESS or ADDRESS:PORT"
        examples = ("10.0.0.2", "127.0.0.1:5353", "[::1]:5353")
        parse = staticmethod(_parse_name_server)

    class ServiceTargetText(Scalar):
        """Where a service of the enclave listens."""

        wanted = "tcp://127.0.0.1:PORT, unix:///PATH, streams or acme"
        examples = ("tcp://127.0.0.1:8080", "unix:///run/app.sock", "streams", "acme")
        values = (VsockAddress, UnixAddress, TcpAddress, str)
        parse = staticmethod(_parse_service_target)

    class NetworkText(Scalar):
        """An IPv4 network."""

        wanted = "an IPv4 network, as 198.18.0.0/15"
        examples = ("198.18.0.0/15",)
        parse = staticmethod(_parse_network)

    class CapabilityText(Scalar):
        """A capability of capabilities(7), without `CAP_`."""

        wanted = "the name of a capability, as NET_BIND_SERVICE"
        examples = ("NET_BIND_SERVICE", "SYS_NICE")
        parse = staticmethod(_parse_capability)

    class Size(Scalar):
        """A number of bytes, an integer or with KiB, MiB, GiB."""

        wanted = "a number of bytes, or one with KiB or MiB"
        examples = ("512MiB", "16KiB", 1048576)
        may_be_integer = True
        values = (int,)
        parse = staticmethod(_parse_size)

    for scalar in Scalar.__subclasses__():
        for value in scalar.values:
            scalar.register(value)
