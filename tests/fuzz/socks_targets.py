"""Target: what a client of our SOCKS proxy sends, greeting and request behind one another."""

from collections.abc import Iterable
from dataclasses import replace

from tests.fuzz.target import Target, same_however_cut
from tests.vsockproxy.protocols.recorded_handshakes import HANDSHAKES
from tests.vsockproxy.protocols.refused_handshakes import REFUSED_GREETINGS, REFUSED_REQUESTS
from vsockproxy.addresses import normalise_host
from vsockproxy.protocols.errors import SocksError
from vsockproxy.protocols.socks5 import GreetingReader, RequestReader, SocksRequest

_GREETING = b"\x05\x01\x00"
_ANSWER_BYTES = {0, 2, 10}
"""Nothing to a stranger, two to a greeting, ten to a request."""


def _read(pieces: Iterable[bytes]) -> SocksRequest | tuple[bytes, str]:
    """The request; or the answer of a refusal, and how it ended."""
    greeting = GreetingReader()
    request: RequestReader | None = None
    rest = iter(pieces)
    try:
        for piece in rest:
            data: bytes | None = piece
            if request is None:
                data = greeting.receive(piece)
                if data is None:
                    continue
                request = RequestReader()
            assert data is not None
            if (read := request.receive(data)) is not None:
                return replace(read, trailing=read.trailing + b"".join(rest))
    except SocksError as error:
        return error.answer, error.text
    return b"", "more" if request is None else "more of the request"


def _execute(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _read(cut(data)))
    if not isinstance(outcome, SocksRequest):
        answer, text = outcome
        assert len(answer) in _ANSWER_BYTES
        assert answer[:1] in (b"", b"\x05")
        assert answer[1:2] != b"\x00", "an error that looks like success"
        assert text.isprintable()
        return f"{answer[1:2].hex()} {text}"
    destination = outcome.destination
    assert normalise_host(destination.host.text) == destination.host
    assert 1 <= destination.port <= 65535
    assert data.endswith(outcome.trailing)
    return "a name" if destination.host.address is None else "an address"


SOCKS5 = Target(
    "socks5",
    _execute,
    corpus=(
        *(
            recorded.greeting + recorded.request + b"\x16\x03\x01"
            for recorded in HANDSHAKES.values()
        ),
        *(greeting for greeting, _, _ in REFUSED_GREETINGS.values()),
        *(_GREETING + request for request, _, _ in REFUSED_REQUESTS.values()),
    ),
    dictionary=(
        _GREETING,
        b"\x05\x02\x00\x01",
        b"\x05\xff",
        b"\x05\x01\x00\x01",
        b"\x05\x01\x00\x03",
        b"\x05\x01\x00\x04",
        b"\x05\x02\x00",
        b"\x05\x03\x00",
        b"\x0bexample.com\x01\xbb",
        b"\x01\xbb",
        b"\x00\x00",
        b"\xff" * 255,
        b".",
        b"::1",
    ),
)
