"""SOCKS handshakes that the proxy refuses: the bytes, the answer or reply, a part of the text."""

from vsockproxy.protocols.socks5 import Reply

NOTHING_CHOSEN = b"\x05\xff"
LARGEST_NAME = b".".join([b"a" * 49] * 5) + b".abc"


def request(kind: int, address: bytes, port: int = 443, *, command: int = 1) -> bytes:
    return bytes((5, command, 0, kind)) + address + port.to_bytes(2)


def request_for(name: bytes, port: int = 443) -> bytes:
    return request(3, bytes((len(name),)) + name, port)


REFUSED_GREETINGS: dict[str, tuple[bytes, bytes, str]] = {
    "a user name and a password are wanted": (
        b"\x05\x01\x02",
        NOTHING_CHOSEN,
        "not go without authentication",
    ),
    "GSSAPI is wanted": (b"\x05\x01\x01", NOTHING_CHOSEN, "neither user name nor password"),
    "no method at all": (b"\x05\x00", NOTHING_CHOSEN, "not go without authentication"),
    "every method but the one": (
        b"\x05\xfe" + bytes(range(1, 255)),
        NOTHING_CHOSEN,
        "not go without authentication",
    ),
    "SOCKS 4": (b"\x04", b"", "socks5h://"),
    "HTTP": (b"C", b"", "0x43"),
    "TLS": (b"\x16", b"", "0x16"),
    "NUL": (b"\x00", b"", "0x00"),
}

REFUSED_REQUESTS: dict[str, tuple[bytes, Reply, str]] = {
    "another version": (b"\x04\x01\x00", Reply.GENERAL_FAILURE, "version 4"),
    "TLS at once": (b"\x16\x03\x01", Reply.GENERAL_FAILURE, "version 22"),
    "the sub-negotiation of a password": (
        b"\x01\x04user\x06secret",
        Reply.GENERAL_FAILURE,
        "version 1",
    ),
    "BIND": (
        request(1, bytes(4), command=2),
        Reply.COMMAND_NOT_SUPPORTED,
        "BIND is asked for: this proxy has only CONNECT",
    ),
    "UDP ASSOCIATE": (
        request(1, bytes(4), command=3),
        Reply.COMMAND_NOT_SUPPORTED,
        "UDP ASSOCIATE",
    ),
    "command 0": (b"\x05\x00", Reply.COMMAND_NOT_SUPPORTED, "command 0 "),
    "a lookup, as Tor has it": (b"\x05\xf0", Reply.COMMAND_NOT_SUPPORTED, "command 240"),
    "a reserved byte that is set": (b"\x05\x01\x01", Reply.GENERAL_FAILURE, "0x01, not 0x00"),
    "address type 0": (b"\x05\x01\x00\x00", Reply.ADDRESS_TYPE_NOT_SUPPORTED, "type 0"),
    "address type 2": (b"\x05\x01\x00\x02", Reply.ADDRESS_TYPE_NOT_SUPPORTED, "type 2"),
    "address type 255": (b"\x05\x01\x00\xff", Reply.ADDRESS_TYPE_NOT_SUPPORTED, "type 255"),
    "port 0": (request_for(b"a.test", 0), Reply.GENERAL_FAILURE, "port 0"),
    "port 0 of an address": (request(1, b"\xc0\x00\x02\x01", 0), Reply.GENERAL_FAILURE, "port 0"),
    "an empty name": (request_for(b""), Reply.GENERAL_FAILURE, "empty"),
    "a name of 254 letters": (request_for(LARGEST_NAME + b"c"), Reply.GENERAL_FAILURE, "too long"),
    "a name of 255 letters": (
        request_for(LARGEST_NAME + b"cd"),
        Reply.GENERAL_FAILURE,
        "too long",
    ),
    "a label of 64 letters": (request_for(b"a" * 64), Reply.GENERAL_FAILURE, "too long"),
    "a doubled dot": (request_for(b"a..test"), Reply.GENERAL_FAILURE, "empty label"),
    "a dot alone": (request_for(b"."), Reply.GENERAL_FAILURE, "empty"),
    "a NUL in the name": (request_for(b"a.test\x00.b.test"), Reply.GENERAL_FAILURE, "control"),
    "a line end in the name": (request_for(b"a.test\r\n"), Reply.GENERAL_FAILURE, "control"),
    "a space in the name": (request_for(b"a test"), Reply.GENERAL_FAILURE, "space"),
    "UTF-8 in the name": (
        request_for("bücher.example".encode()),
        Reply.GENERAL_FAILURE,
        "send its A-labels",
    ),
    "no text at all in the name": (request_for(b"\xff\xfe"), Reply.GENERAL_FAILURE, "not ASCII"),
    "a name with its port": (request_for(b"a.test:443"), Reply.GENERAL_FAILURE, "without a port"),
    "a URL": (request_for(b"https://a.test"), Reply.GENERAL_FAILURE, "neither a name nor"),
    "an IPv6 literal in brackets": (request_for(b"[::1]"), Reply.GENERAL_FAILURE, "brackets"),
    "an IPv6 literal with a zone": (request_for(b"fe80::1%eth0"), Reply.GENERAL_FAILURE, "zone"),
    "an address in octal": (request_for(b"0177.0.0.1"), Reply.GENERAL_FAILURE, "canonical"),
    "an address as an integer": (request_for(b"2130706433"), Reply.GENERAL_FAILURE, "canonical"),
    "a short address": (request_for(b"127.1"), Reply.GENERAL_FAILURE, "canonical"),
}
