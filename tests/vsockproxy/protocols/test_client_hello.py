import functools
import ssl
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vsockproxy.protocols import hellos
from tests.vsockproxy.protocols.feeding import Feed, every_feed
from tests.vsockproxy.protocols.hellos import (
    extension,
    hello,
    hello_body,
    hello_for,
    message,
    records,
    server_name_extension,
    vector,
)
from vsockproxy.addresses import normalise_host
from vsockproxy.protocols.client_hello import (
    MAX_HELLO_BYTES,
    ClientHello,
    ClientHelloReader,
    check_server_name,
)
from vsockproxy.protocols.errors import ClientHelloError, NotTls, SniMismatch

TLS_1_2 = ssl.TLSVersion.TLSv1_2
TLS_1_3 = ssl.TLSVersion.TLSv1_3


def read(data: bytes, feed: Feed) -> ClientHello | None:
    reader = ClientHelloReader()
    for piece in feed(data):
        if (found := reader.receive(piece)) is not None:
            return found
    return None


Make = Callable[[], bytes]

REAL: dict[str, tuple[Make, str | None]] = {
    "TLS 1.3": (lambda: hellos.openssl_hello("example.com", TLS_1_3), "example.com"),
    "TLS 1.2": (lambda: hellos.openssl_hello("example.com", TLS_1_2), "example.com"),
    "TLS 1.3 without a name": (lambda: hellos.openssl_hello(None, TLS_1_3), None),
    "TLS 1.2 without a name": (lambda: hellos.openssl_hello(None, TLS_1_2), None),
    "TLS 1.3 to a literal": (lambda: hellos.openssl_hello("127.0.0.1", TLS_1_3), None),
    "TLS 1.2 to an IPv6 literal": (lambda: hellos.openssl_hello("::1", TLS_1_2), None),
    "ALPN": (
        lambda: hellos.openssl_hello("example.com", TLS_1_3, alpn=("h2", "http/1.1")),
        "example.com",
    ),
    "an international name": (
        lambda: hellos.openssl_hello("bücher.example", TLS_1_3),
        "xn--bcher-kva.example",
    ),
    "a name of 253 bytes": (
        lambda: hellos.openssl_hello(".".join(["a" * 49] * 5) + ".abc", TLS_1_3),
        ".".join(["a" * 49] * 5) + ".abc",
    ),
    "TLS 1.2 with a ticket": (
        lambda: hellos.openssl_resumption_hello("example.com", TLS_1_2),
        "example.com",
    ),
    "TLS 1.3 with a ticket": (
        lambda: hellos.openssl_resumption_hello("example.com", TLS_1_3),
        "example.com",
    ),
    "TLS 1.2 with a ticket of 8 KiB": (
        lambda: hellos.openssl_resumption_hello("example.com", TLS_1_2, names_in_certificate=300),
        "example.com",
    ),
}


@functools.cache
def real(name: str) -> bytes:
    """Made once: each is compared with itself in other pieces."""
    return REAL[name][0]()


@every_feed
@pytest.mark.parametrize("name", REAL)
def test_what_openssl_sends(name: str, feed: Feed) -> None:
    data = real(name)

    assert read(data, feed) == ClientHello(REAL[name][1])
    assert read(data + b"more", feed) == ClientHello(REAL[name][1])


@pytest.mark.parametrize("name", REAL)
def test_every_beginning_asks_for_more_and_every_split_ends_the_same(name: str) -> None:
    data = real(name)
    for middle in range(len(data)):
        reader = ClientHelloReader()
        assert reader.receive(data[:middle]) is None
        assert reader.receive(data[middle:]) == ClientHello(REAL[name][1])


def test_the_big_ticket_is_big() -> None:
    assert 8_192 < len(real("TLS 1.2 with a ticket of 8 KiB")) < MAX_HELLO_BYTES


def test_what_was_received_is_kept_to_be_sent_on() -> None:
    data = real("TLS 1.3")
    reader = ClientHelloReader()
    reader.receive(data[:7])
    reader.receive(data[7:] + b"early data")

    assert reader.received == data + b"early data"


NAMED = server_name_extension(b"example.com")
BIG = extension(hellos.PADDING, bytes(16_384 - 4 - 4 - len(hello_body(b""))))

ACCEPTED: dict[str, tuple[bytes, str | None]] = {
    "no extensions at all": (hello(None), None),
    "an empty block of extensions": (hello(b""), None),
    "other extensions alone": (hello(extension(hellos.PADDING, b"")), None),
    "GREASE around the name": (
        hello(extension(hellos.GREASE, b"") + NAMED + extension(0xDADA, b"\x00")),
        "example.com",
    ),
    "ECH: the outer name counts": (
        hello(NAMED + extension(hellos.ENCRYPTED_CLIENT_HELLO, bytes(200))),
        "example.com",
    ),
    "a name as it was sent": (hello_for(b"EXAMPLE.com"), "EXAMPLE.com"),
    "an underscore": (hello_for(b"my_bucket.example.com"), "my_bucket.example.com"),
    "a dot at the end": (hello_for(b"example.com."), "example.com."),
    "no session id": (records(message(hello_body(NAMED, session_id=b""))), "example.com"),
    "TLS 1.0": (records(message(hello_body(NAMED, version=0x0301))), "example.com"),
    "a record of version 3.0": (records(message(hello_body(NAMED)), version=0x0300), "example.com"),
    "a record of version 3.3": (records(message(hello_body(NAMED)), version=0x0303), "example.com"),
    "one byte in each record": (records(message(hello_body(NAMED)), 1), "example.com"),
    "a name over two records": (records(message(hello_body(NAMED)), 90), "example.com"),
    "a record of the largest size": (hello(BIG), None),
}


@every_feed
@pytest.mark.parametrize(("data", "server_name"), ACCEPTED.values(), ids=ACCEPTED)
def test_hellos_that_are_read(data: bytes, server_name: str | None, feed: Feed) -> None:
    assert read(data, feed) == ClientHello(server_name)
    for middle in range(0, len(data), max(1, len(data) // 500)):
        assert ClientHelloReader().receive(data[:middle]) is None


NOT_TLS: dict[str, tuple[bytes, str]] = {
    # Found at the first bytes
    "HTTP": (b"G", "0x47"),
    "SSH": (b"S", "0x53"),
    "a PostgreSQL start": (b"\x00", "0x00"),
    "SSL 2.0": (b"\x80\x2e\x01\x00\x02", "SSL 2.0"),
    "a TLS alert": (b"\x15", "0x15"),
    "DTLS": (b"\x16\xfe", "version 254"),
    "a record of version 2": (b"\x16\x02", "version 2"),
    # Records
    "an empty record": (b"\x16\x03\x01\x00\x00", "0 bytes"),
    "a record of more than 16 KiB": (b"\x16\x03\x01\x40\x01", "16385 bytes"),
    "another record inside the hello": (
        records(message(hello_body(NAMED))[:50]) + b"\x17\x03\x03\x00\x01",
        "record type 23",
    ),
    "two records of more than 16 KiB together": (
        records(b"\x01\x00\x3f\xff" + bytes(8188)) + b"\x16\x03\x01\x20\x00",
        "more than",
    ),
    # The handshake message
    "a ServerHello": (records(message(hello_body(NAMED), kind=2)), "message 2"),
    "a hello that says it has 16 MiB": (records(b"\x01\xff\xff\xff"), "more than"),
    "a message behind the hello": (records(message(hello_body(NAMED)) + b"\x01"), "follow"),
    # The ClientHello
    "an empty hello": (records(message(b"")), "cut short"),
    "SSL 3.0": (records(message(hello_body(NAMED, version=0x0300))), "0x0300"),
    "a version beyond TLS": (records(message(hello_body(NAMED, version=0x0400))), "0x0400"),
    "a session id of 33 bytes": (
        records(message(hello_body(NAMED, session_id=bytes(33)))),
        "session id of 33 bytes",
    ),
    "no cipher suites": (records(message(hello_body(NAMED, cipher_suites=b""))), "suites of 0"),
    "half a cipher suite": (
        records(message(hello_body(NAMED, cipher_suites=b"\x13\x01\x13"))),
        "suites of 3",
    ),
    "no compression methods": (
        records(message(hello_body(NAMED, compression_methods=b""))),
        "compression methods of 0",
    ),
    "bytes behind the extensions": (records(message(hello_body(NAMED) + b"\x00")), "follow"),
    "one byte where extensions begin": (records(message(hello_body(None) + b"\x00")), "cut short"),
    "extensions that end too late": (
        records(message(hello_body(None) + b"\x00\x09" + bytes(8))),
        "cut short",
    ),
    "an extension that ends too late": (hello(b"\x00\x15\x00\x01"), "cut short"),
    "half an extension": (hello(b"\x00"), "cut short"),
    "an extension twice": (hello(extension(hellos.PADDING, b"") * 2), "twice"),
    "two names in two extensions": (hello(NAMED + NAMED), "twice"),
    # The name
    "two names in one list": (hello(server_name_extension(b"a.test", b"b.test")), "more than one"),
    "an empty list of names": (hello(extension(0, b"\x00\x00")), "names of 0 bytes"),
    "an empty extension": (hello(extension(0, b"")), "cut short"),
    "a name of another type": (hello(server_name_extension(b"a.test", kind=1)), "type 1"),
    "an empty name": (hello_for(b""), "other characters"),
    "a name that ends too late": (
        hello(extension(0, vector(2, b"\x00\x00\x09a.test"))),
        "cut short",
    ),
    "bytes behind the list of names": (
        hello(extension(0, vector(2, b"\x00" + vector(2, b"a.test")) + b"\x00")),
        "follow",
    ),
    "NUL in the name": (hello_for(b"example.com\x00.evil.test"), "other characters"),
    "a space in the name": (hello_for(b"example.com "), "other characters"),
    "a line end in the name": (hello_for(b"example.com\n"), "other characters"),
    "UTF-8 in the name": (hello_for("bücher.example".encode()), "other characters"),
    "an IPv6 literal as the name": (hello_for(b"::1"), "other characters"),
    "two dots in the name": (hello_for(b"example..com"), "other characters"),
    "a dot as the name": (hello_for(b"."), "other characters"),
}


@every_feed
@pytest.mark.parametrize(("data", "text"), NOT_TLS.values(), ids=NOT_TLS)
def test_what_is_no_client_hello(data: bytes, text: str, feed: Feed) -> None:
    with pytest.raises(NotTls) as caught:
        read(data, feed)

    assert caught.value.reason == "not_tls"
    assert text in caught.value.text


def test_a_stranger_is_known_by_the_first_byte() -> None:
    for first in range(256):
        reader = ClientHelloReader()
        if first == 0x16:
            assert reader.receive(bytes([first])) is None
        else:
            with pytest.raises(NotTls):
                reader.receive(bytes([first]))


def test_a_hello_of_the_largest_size_and_one_byte_more() -> None:
    assert read(hello(BIG), lambda data: iter([data])) == ClientHello(None)
    assert len(hello(BIG)) == MAX_HELLO_BYTES

    larger = message(hello_body(BIG + extension(hellos.GREASE, b"")))
    with pytest.raises(NotTls, match="more than"):
        ClientHelloReader().receive(records(larger))


def test_no_more_is_kept_than_a_hello_and_one_read() -> None:
    reader = ClientHelloReader()
    endless = records(message(bytes(16_000)), 1)

    def feed_all() -> None:
        for start in range(0, len(endless), 1000):
            assert reader.receive(endless[start : start + 1000]) is None

    with pytest.raises(NotTls, match="more than"):
        feed_all()
    assert len(reader.received) <= MAX_HELLO_BYTES + 1000


MATCHES = {
    "the name that was asked for": ("example.com", "example.com"),
    "in other letters": ("EXAMPLE.com", "example.COM"),
    "with a dot at the end": ("example.com.", "example.com"),
    "no name for an IPv4 literal": (None, "10.0.0.1"),
    "no name for an IPv6 literal": (None, "2001:db8::1"),
    "an international name in A-labels": ("xn--bcher-kva.example", "bücher.example"),
}


@pytest.mark.parametrize(("server_name", "host"), MATCHES.values(), ids=MATCHES)
def test_hellos_for_the_host(server_name: str | None, host: str) -> None:
    check_server_name(ClientHello(server_name), normalise_host(host))


MISMATCHES = {
    "another name": ("evil.test", "example.com"),
    "a name below it": ("a.example.com", "example.com"),
    "a name above it": ("example.com", "a.example.com"),
    "no name": (None, "example.com"),
    "a name for an IPv4 literal": ("example.com", "10.0.0.1"),
    "the IPv4 literal itself": ("10.0.0.1", "10.0.0.1"),
    "an address in octal": ("0177.0.0.1", "example.com"),
    "a label of 64 bytes": ("a" * 64 + ".test", "example.com"),
    "a hyphen at the end of a label": ("example-.com", "example.com"),
}


@pytest.mark.parametrize(("server_name", "host"), MISMATCHES.values(), ids=MISMATCHES)
def test_hellos_for_another_host(server_name: str | None, host: str) -> None:
    with pytest.raises(SniMismatch) as caught:
        check_server_name(ClientHello(server_name), normalise_host(host))

    assert caught.value.reason == "sni_mismatch"
    assert host in caught.value.text or "malformed" in caught.value.text


@given(
    st.sampled_from(sorted(REAL)),
    st.lists(st.tuples(st.integers(0, 20_000), st.binary(max_size=3)), min_size=1, max_size=4),
    st.integers(0, 20_000),
)
def test_mutated_hellos_end_in_a_value_more_or_not_tls(
    name: str, changes: list[tuple[int, bytes]], middle: int
) -> None:
    data = bytearray(real(name))
    for position, content in changes:
        start = position % len(data)
        data[start : start + len(content)] = content

    def outcome(pieces: list[bytes]) -> object:
        reader = ClientHelloReader()
        try:
            for piece in pieces:
                if (found := reader.receive(piece)) is not None:
                    return found
        except ClientHelloError as error:
            return error.text
        return None

    middle %= len(data)
    assert outcome([bytes(data)]) == outcome([bytes(data[:middle]), bytes(data[middle:])])
