"""SOCKS 5 handshakes of real clients, recorded on a loopback listener that answered them."""

from typing import NamedTuple


class Handshake(NamedTuple):
    greeting: bytes
    request: bytes
    destination: str


_DOCUMENTATION = bytes.fromhex("20010db8000000000000000000000001")
"""2001:db8::1 (RFC 3849)."""

HANDSHAKES = {
    "curl 7.88 with --socks5-hostname keeps capitals and a trailing dot": Handshake(
        b"\x05\x02\x00\x01", b"\x05\x01\x00\x03\x0cEXAMPLE.com.\x01\xbb", "example.com:443"
    ),
    "curl 7.88 sends an international name in A-labels": Handshake(
        b"\x05\x02\x00\x01",
        b"\x05\x01\x00\x03\x15xn--bcher-kva.example\x01\xbb",
        "xn--bcher-kva.example:443",
    ),
    "curl 7.88 with a user name and a password offers them too": Handshake(
        b"\x05\x03\x00\x01\x02", b"\x05\x01\x00\x03\x0bexample.com\x01\xbb", "example.com:443"
    ),
    "curl 7.88 sends an IPv4 literal as an address": Handshake(
        b"\x05\x02\x00\x01", b"\x05\x01\x00\x01\xc0\x00\x02\x01\x20\xfb", "192.0.2.1:8443"
    ),
    "curl 7.88 sends an IPv6 literal as an address": Handshake(
        b"\x05\x02\x00\x01",
        b"\x05\x01\x00\x04" + _DOCUMENTATION + b"\x20\xfb",
        "[2001:db8::1]:8443",
    ),
    "git 2.39 with http.proxy=socks5h://": Handshake(
        b"\x05\x02\x00\x01", b"\x05\x01\x00\x03\x0bexample.com\x01\xbb", "example.com:443"
    ),
    "requests 2.34 with PySocks 1.7": Handshake(
        b"\x05\x01\x00", b"\x05\x01\x00\x03\x0bexample.com\x01\xbb", "example.com:443"
    ),
    "requests 2.34 sends an IPv6 literal as an address": Handshake(
        b"\x05\x01\x00",
        b"\x05\x01\x00\x04" + _DOCUMENTATION + b"\x20\xfb",
        "[2001:db8::1]:8443",
    ),
    "httpx 0.28 with socksio 1.0": Handshake(
        b"\x05\x01\x00", b"\x05\x01\x00\x03\x0bexample.com\x01\xbb", "example.com:443"
    ),
    "OpenBSD's nc 1.219": Handshake(
        b"\x05\x01\x00", b"\x05\x01\x00\x03\x0bexample.com\x01\xbb", "example.com:443"
    ),
    "Java 17 with -DsocksProxyHost": Handshake(
        b"\x05\x02\x00\x02", b"\x05\x01\x00\x03\x0bexample.com\x01\xbb", "example.com:443"
    ),
}
