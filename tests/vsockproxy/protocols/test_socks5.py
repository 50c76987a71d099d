import ipaddress
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vsockproxy.protocols.feeding import Feed, byte_by_byte, every_feed, whole
from tests.vsockproxy.protocols.recorded_handshakes import HANDSHAKES, Handshake
from tests.vsockproxy.protocols.refused_handshakes import (
    LARGEST_NAME,
    REFUSED_GREETINGS,
    REFUSED_REQUESTS,
    request,
    request_for,
)
from vsockproxy.addresses import Destination
from vsockproxy.policy.reasons import Reason
from vsockproxy.protocols.errors import SocksError
from vsockproxy.protocols.socks5 import (
    NO_AUTHENTICATION_CHOSEN,
    REPLY_BY_REASON,
    GreetingReader,
    Reply,
    RequestReader,
    SocksRequest,
    encode_reply,
    reply_for,
)

LARGEST_GREETING = b"\x05\xff" + bytes(range(254, -1, -1))


def read_greeting(pieces: Sequence[bytes]) -> bytes | None:
    """All bytes behind the greeting, those of later pieces too."""
    reader = GreetingReader()
    for number, piece in enumerate(pieces):
        if (behind := reader.receive(piece)) is not None:
            return behind + b"".join(pieces[number + 1 :])
    return None


def read_request(pieces: Sequence[bytes]) -> SocksRequest | None:
    """The request, with all that follows it as trailing bytes."""
    reader = RequestReader()
    for number, piece in enumerate(pieces):
        if (request := reader.receive(piece)) is not None:
            later = b"".join(pieces[number + 1 :])
            return SocksRequest(request.destination, request.trailing + later)
    return None


@every_feed
@pytest.mark.parametrize("recorded", HANDSHAKES.values(), ids=HANDSHAKES)
def test_handshakes_of_real_clients(recorded: Handshake, feed: Feed) -> None:
    assert read_greeting(list(feed(recorded.greeting))) == b""

    read = read_request(list(feed(recorded.request + b"\x16\x03\x01 first bytes")))

    assert read is not None
    assert str(read.destination) == recorded.destination
    assert read.trailing == b"\x16\x03\x01 first bytes"


@pytest.mark.parametrize("recorded", HANDSHAKES.values(), ids=HANDSHAKES)
def test_every_beginning_asks_for_more_and_every_split_ends_the_same(recorded: Handshake) -> None:
    for middle in range(len(recorded.greeting)):
        greeting = GreetingReader()
        assert greeting.receive(recorded.greeting[:middle]) is None
        assert greeting.receive(recorded.greeting[middle:] + b"behind") == b"behind"
    for middle in range(len(recorded.request)):
        reader = RequestReader()
        assert reader.receive(recorded.request[:middle]) is None
        read = reader.receive(recorded.request[middle:] + b"behind")
        assert read is not None
        assert (str(read.destination), read.trailing) == (recorded.destination, b"behind")


def test_a_client_may_send_all_at_once() -> None:
    behind_greeting = GreetingReader().receive(b"\x05\x01\x00" + request_for(b"a.test") + b"data")
    assert behind_greeting is not None

    read = RequestReader().receive(behind_greeting)

    assert read is not None
    assert (str(read.destination), read.trailing) == ("a.test:443", b"data")


GREETINGS = {
    "no authentication alone": b"\x05\x01\x00",
    "no authentication last": b"\x05\x03\x02\x01\x00",
    "a method twice": b"\x05\x02\x00\x00",
    "every method there is": LARGEST_GREETING,
}


@every_feed
@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
def test_greetings_that_are_accepted(greeting: bytes, feed: Feed) -> None:
    assert read_greeting(list(feed(greeting))) == b""
    assert read_greeting(list(feed(greeting[:-1]))) is None


@every_feed
@pytest.mark.parametrize(
    ("greeting", "answer", "text"), REFUSED_GREETINGS.values(), ids=REFUSED_GREETINGS
)
def test_greetings_that_are_refused(greeting: bytes, answer: bytes, text: str, feed: Feed) -> None:
    for behind in (b"", b"\x05\x01\x00"):
        with pytest.raises(SocksError) as caught:
            read_greeting(list(feed(greeting + behind)))
        assert caught.value.answer == answer
        assert text in caught.value.text


def test_a_stranger_is_known_by_the_first_byte() -> None:
    for first in range(256):
        if first == 5:
            assert GreetingReader().receive(b"\x05") is None
            assert RequestReader().receive(b"\x05") is None
        else:
            with pytest.raises(SocksError, match="SOCKS"):
                GreetingReader().receive(bytes((first,)))
            with pytest.raises(SocksError, match="version"):
                RequestReader().receive(bytes((first,)))


DESTINATIONS = {
    "a name": (request_for(b"example.com"), "example.com:443"),
    "a name in capitals": (request_for(b"EXAMPLE.com"), "example.com:443"),
    "a name with a dot at the end": (request_for(b"example.com."), "example.com:443"),
    "a name with an underscore": (request_for(b"my_db.test"), "my_db.test:443"),
    "a name of 253 bytes": (request_for(LARGEST_NAME), f"{LARGEST_NAME.decode()}:443"),
    "a name of 254 bytes with its dot": (
        request_for(LARGEST_NAME + b"."),
        f"{LARGEST_NAME.decode()}:443",
    ),
    "a name of one letter": (request_for(b"a"), "a:443"),
    "an IPv4 literal in the place of a name": (request_for(b"192.0.2.1"), "192.0.2.1:443"),
    "an IPv6 literal in the place of a name": (request_for(b"2001:DB8::0:1"), "[2001:db8::1]:443"),
    "IPv4": (request(1, b"\xc0\x00\x02\x01"), "192.0.2.1:443"),
    "IPv4, all zero": (request(1, bytes(4)), "0.0.0.0:443"),
    "IPv6": (
        request(4, ipaddress.IPv6Address("2001:db8::1").packed),
        "[2001:db8::1]:443",
    ),
    "IPv6, all zero": (request(4, bytes(16)), "[::]:443"),
    "IPv6 that holds an IPv4 address": (
        request(4, ipaddress.IPv6Address("::ffff:192.0.2.1").packed),
        "[::ffff:192.0.2.1]:443",
    ),
    "the lowest port": (request_for(b"a.test", 1), "a.test:1"),
    "the highest port": (request_for(b"a.test", 65535), "a.test:65535"),
}


@every_feed
@pytest.mark.parametrize(("data", "destination"), DESTINATIONS.values(), ids=DESTINATIONS)
def test_destinations(data: bytes, destination: str, feed: Feed) -> None:
    read = read_request(list(feed(data)))

    assert read is not None
    assert str(read.destination) == destination
    assert read.trailing == b""
    assert read_request(list(feed(data[:-1]))) is None


def test_a_destination_is_the_same_in_each_form() -> None:
    forms = [
        request(4, ipaddress.IPv6Address("2001:db8::1").packed),
        request_for(b"2001:db8::1"),
        request_for(b"2001:0DB8:0::1"),
    ]

    assert len({read.destination for form in forms if (read := read_request([form]))}) == 1


@every_feed
@pytest.mark.parametrize(("data", "reply", "text"), REFUSED_REQUESTS.values(), ids=REFUSED_REQUESTS)
def test_requests_that_are_refused(data: bytes, reply: Reply, text: str, feed: Feed) -> None:
    for behind in (b"", b"secret"):
        with pytest.raises(SocksError) as caught:
            read_request(list(feed(data + behind)))
        assert caught.value.answer == bytes((5, reply, 0, 1, 0, 0, 0, 0, 0, 0))
        assert text in caught.value.text
        assert caught.value.text.isprintable()
        assert "secret" not in caught.value.text


def test_a_command_and_a_type_are_refused_before_the_rest_of_the_request() -> None:
    for beginning in (b"\x05\x03", b"\x05\x01\x00\x09"):
        reader = RequestReader()
        assert reader.receive(beginning[:-1]) is None
        with pytest.raises(SocksError):
            reader.receive(beginning[-1:])


def test_no_more_is_awaited_than_one_byte_of_length_can_say() -> None:
    for greeting in (b"\x05\xff" + bytes(255), LARGEST_GREETING):
        assert len(greeting) == 257
        assert read_greeting(list(byte_by_byte(greeting + b"x"))) == b"x"
    longest = request_for(b"a." * 127 + b"a")
    assert len(longest) == 262
    with pytest.raises(SocksError, match="too long"):
        read_request(list(byte_by_byte(longest)))


def test_what_is_chosen_and_what_a_reply_looks_like() -> None:
    assert NO_AUTHENTICATION_CHOSEN == b"\x05\x00"
    assert encode_reply(Reply.SUCCEEDED) == b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    assert encode_reply(Reply.CONNECTION_REFUSED) == b"\x05\x05\x00\x01" + bytes(6)


def test_every_refusing_reason_has_a_reply() -> None:
    assert set(REPLY_BY_REASON) == set(Reason) - {Reason.LISTED}


REPLIES = {
    2: (
        Reason.NOT_LISTED,
        Reason.PORT_NOT_LISTED,
        Reason.DENIED,
        Reason.ADDRESS_PRIVATE,
        Reason.ADDRESS_METADATA,
        Reason.ADDRESS_RESERVED,
        Reason.NOT_TLS,
        Reason.SNI_MISMATCH,
    ),
    4: (Reason.NO_SUCH_NAME, Reason.LOOKUP_FAILED, Reason.DIAL_TIMEOUT),
    5: (Reason.DIAL_REFUSED,),
    1: (Reason.LIMIT, Reason.PARENT_AWAY),
}


@pytest.mark.parametrize("reply", REPLIES)
def test_replies(reply: int) -> None:
    assert {reply_for(reason) for reason in REPLIES[reply]} == {reply}


def test_a_reason_from_the_future_is_a_no() -> None:
    assert reply_for("quota_of_next_year") == 2


NAMES = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?(\.[a-z]{2,10}){1,4}", fullmatch=True)
PORTS = st.integers(1, 65535)


@given(
    st.one_of(
        NAMES.map(lambda name: (name, request_for(name.encode())[:-2])),
        st.ip_addresses(v=4).map(lambda ip: (str(ip), request(1, ip.packed)[:-2])),
        st.ip_addresses(v=6).map(lambda ip: (str(ip), request(4, ip.packed)[:-2])),
    ),
    PORTS,
    st.binary(max_size=40),
)
def test_whatever_is_encoded_is_read(
    addressed: tuple[str, bytes], port: int, trailing: bytes
) -> None:
    text, head = addressed

    read = read_request([head + port.to_bytes(2) + trailing])

    assert read is not None
    destination: Destination = read.destination
    assert (destination.port, read.trailing) == (port, trailing)
    if destination.host.address is None:
        assert destination.host.text == text
    else:
        assert destination.host.address == ipaddress.ip_address(text)


def cut_at_random(data: bytes, seed: int) -> list[bytes]:
    choice = random.Random(seed)
    edges = sorted(choice.randint(0, len(data)) for _ in range(choice.randint(0, 5)))
    return [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=20).map(lambda data: b"\x05" + data),
        st.tuples(
            st.sampled_from((b"\x05\x01\x00", b"\x05\x02\x00", b"\x05\x01", b"\x05\x03\x02\x01")),
            st.sampled_from((1, 3, 4, 9)),
            st.binary(max_size=280),
        ).map(lambda parts: parts[0] + bytes((parts[1],)) + parts[2]),
    ),
    st.integers(0, 2**32),
)
def test_however_bytes_are_cut_they_end_in_the_same(data: bytes, seed: int) -> None:
    def outcome(
        read: Callable[[Sequence[bytes]], bytes | SocksRequest | None], pieces: Sequence[bytes]
    ) -> object:
        try:
            return read(pieces)
        except SocksError as error:
            return error.answer, error.text

    for read in (read_greeting, read_request):
        expected = outcome(read, list(whole(data)))
        assert outcome(read, cut_at_random(data, seed)) == expected
        assert outcome(read, list(byte_by_byte(data))) == expected
