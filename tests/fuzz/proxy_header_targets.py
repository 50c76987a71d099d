"""Target: the PROXY protocol header of a balancer."""

from collections.abc import Iterable

from tests.fuzz.target import Target, same_however_cut
from tests.vsockproxy.protocols.test_proxy_v2 import AWS_ENDPOINT, GOOD, IPV4, header
from vsockproxy.protocols.errors import ProxyHeaderError
from vsockproxy.protocols.proxy_v2 import SIGNATURE, ProxyHeader, ProxyHeaderReader


def _read(pieces: Iterable[bytes]) -> ProxyHeader | str:
    reader = ProxyHeaderReader()
    fed = b""
    left = list(pieces)
    try:
        while left:
            piece = left.pop(0)
            fed += piece
            if (seen := reader.receive(piece)) is not None:
                assert fed.endswith(reader.rest)
                return seen
    except ProxyHeaderError as error:
        return error.text
    return "more"


def _execute(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _read(cut(data)))
    if isinstance(outcome, str):
        assert outcome.isprintable()
        return outcome
    if outcome.client is None:
        return "nobody"
    again = ProxyHeaderReader()
    assert again.receive(outcome.encode()) == outcome
    return "a client"


PROXY_HEADER = Target(
    "proxy_header",
    _execute,
    corpus=(*(data for data, _ in GOOD.values()), header(0x21, 0x11, IPV4) + b"\x16\x03\x01"),
    dictionary=(SIGNATURE, AWS_ENDPOINT, IPV4, b"\x21\x11\x00\x0c", b"\x20\x00\x00\x00", b"PROXY "),
)
