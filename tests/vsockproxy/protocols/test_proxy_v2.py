"""PROXY protocol version 2: what is taken, what is not, and what is sent."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vsockproxy.protocols.feeding import Feed, every_feed
from vsockproxy.protocols.errors import ProxyHeaderError
from vsockproxy.protocols.proxy_v2 import (
    MAX_HEADER_BYTES,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderReader,
    SocketAddress,
)


def header(command: int, family: int, content: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(content)) + content


def at(address: str, port: int) -> SocketAddress:
    return SocketAddress(ip_address(address), port)


IPV4 = bytes.fromhex("c0000201 c6336407 dc04 01bb")
"""192.0.2.1 port 56324 to 198.51.100.7 port 443."""
IPV6 = bytes.fromhex("20010db8 00000000 00000000 00000001" * 2 + "dc04 01bb")

SEEN_IPV4 = ProxyHeader(at("192.0.2.1", 56324), at("198.51.100.7", 443))
SEEN_IPV6 = ProxyHeader(at("2001:db8::1", 56324), at("2001:db8::1", 443))
AWS_ENDPOINT = b"\xea\x00\x17\x01vpce-08d2bf15fac5001c9"
"""The type-length-value field of an NLB's endpoint service; 0xEA is AWS's."""

GOOD: dict[str, tuple[bytes, ProxyHeader]] = {
    "TCP over IPv4": (header(0x21, 0x11, IPV4), SEEN_IPV4),
    "TCP over IPv6": (header(0x21, 0x21, IPV6), SEEN_IPV6),
    "an NLB's, with its endpoint": (header(0x21, 0x11, IPV4 + AWS_ENDPOINT), SEEN_IPV4),
    "several fields": (header(0x21, 0x21, IPV6 + b"\x04\0\0" + AWS_ENDPOINT), SEEN_IPV6),
    "LOCAL": (header(0x20, 0x00, b""), ProxyHeader()),
    "LOCAL with addresses, which are discarded": (header(0x20, 0x11, IPV4), ProxyHeader()),
    "LOCAL of an unknown family": (header(0x20, 0x47, b"x"), ProxyHeader()),
    "PROXY without a family": (header(0x21, 0x00, b"anything"), ProxyHeader()),
    "a unix socket": (header(0x21, 0x31, bytes(216)), ProxyHeader()),
    "the longest": (
        header(0x21, 0x11, IPV4 + b"\x04\x0f\xf1" + bytes(MAX_HEADER_BYTES - 16 - 12 - 3)),
        SEEN_IPV4,
    ),
}


@every_feed
@pytest.mark.parametrize("case", GOOD)
def test_a_header(case: str, feed: Feed) -> None:
    data, seen = GOOD[case]
    reader = ProxyHeaderReader()
    values = [reader.receive(piece) for piece in feed(data)]
    assert values[:-1] == [None] * (len(values) - 1)
    assert values[-1] == seen
    assert reader.rest == b""


def test_what_follows_is_left_over() -> None:
    reader = ProxyHeaderReader()
    assert reader.receive(header(0x21, 0x11, IPV4) + b"\x16\x03\x01") == SEEN_IPV4
    assert reader.rest == b"\x16\x03\x01"


BAD: dict[str, tuple[bytes, str]] = {
    "version 1": (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", "set the balancer to"),
    "a TLS client": (b"\x16\x03\x01", "no PROXY protocol header"),
    "an HTTP client": (b"GET / HTTP/1.1\r\n", "no PROXY protocol header"),
    "a signature with another end": (SIGNATURE[:-1] + b"X", "no PROXY protocol header"),
    "version 1 in the binary form": (SIGNATURE + b"\x11", "version 1: only version 2"),
    "version 3": (SIGNATURE + b"\x31", "version 3: only version 2"),
    "an unknown command": (SIGNATURE + b"\x22", "command 2"),
    "UDP over IPv4": (header(0x21, 0x12, IPV4), "something else than TCP: 0x12"),
    "UDP over IPv6": (header(0x21, 0x22, IPV6), "something else than TCP: 0x22"),
    "datagrams of a unix socket": (header(0x21, 0x32, bytes(216)), "something else than TCP"),
    "an unknown family": (header(0x21, 0x41, b""), "something else than TCP"),
    "IPv4 that is cut short": (header(0x21, 0x11, IPV4[:-1]), "too short"),
    "IPv6 that is cut short": (header(0x21, 0x21, IPV6[:-1]), "too short"),
    "a unix socket that is cut short": (header(0x21, 0x31, bytes(215)), "too short"),
    "half a field": (header(0x21, 0x11, IPV4 + b"\x04\0"), "cut short"),
    "a field beyond the end": (header(0x21, 0x11, IPV4 + b"\x04\0\2x"), "longer than"),
    "a length beyond the bound": (
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_HEADER_BYTES - 15),
        f"more than {MAX_HEADER_BYTES}",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_no_header(case: str) -> None:
    data, text = BAD[case]
    with pytest.raises(ProxyHeaderError, match=text):
        ProxyHeaderReader().receive(data)


@pytest.mark.parametrize("length", range(16))
def test_half_a_header_waits_for_more(length: int) -> None:
    assert ProxyHeaderReader().receive(header(0x21, 0x11, IPV4)[:length]) is None


def test_the_wrong_beginning_is_refused_at_its_first_byte() -> None:
    with pytest.raises(ProxyHeaderError):
        ProxyHeaderReader().receive(b"G")


SENT: dict[str, tuple[ProxyHeader, bytes]] = {
    "IPv4": (SEEN_IPV4, header(0x21, 0x11, IPV4)),
    "IPv6": (SEEN_IPV6, header(0x21, 0x21, IPV6)),
    "nobody": (ProxyHeader(), header(0x20, 0x00, b"")),
    "a client alone": (ProxyHeader(at("192.0.2.1", 1)), header(0x20, 0x00, b"")),
    "two families": (
        ProxyHeader(at("192.0.2.1", 1), at("2001:db8::1", 2)),
        header(0x20, 0x00, b""),
    ),
}


@pytest.mark.parametrize("case", SENT)
def test_what_is_sent(case: str) -> None:
    value, data = SENT[case]
    assert value.encode() == data


_ENDS = st.builds(SocketAddress, st.ip_addresses(), st.integers(0, 65535))


@given(_ENDS, _ENDS)
def test_what_is_sent_is_taken(client: SocketAddress, server: SocketAddress) -> None:
    reader = ProxyHeaderReader()
    is_one_family = client.address.version == server.address.version
    seen = ProxyHeader(client, server) if is_one_family else ProxyHeader()
    assert reader.receive(ProxyHeader(client, server).encode() + b"rest") == seen
    assert reader.rest == b"rest"


def test_addresses_are_written_as_they_are_dialled() -> None:
    assert str(at("192.0.2.1", 80)) == "192.0.2.1:80"
    assert str(at("2001:db8::1", 443)) == "[2001:db8::1]:443"
