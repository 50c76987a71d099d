"""The opening exchange on a connected socket, on both sides."""

import secrets
import socket
from dataclasses import dataclass

from vsockproxy.dataplane.carriers import UNIX, VSOCK, Carrier
from vsockproxy.dataplane.sockets import receive_at_once, send_all
from vsockproxy.session import DedicatedPreface, Hello, PrefaceReader, agree_on_version
from vsockproxy.session.attesting import (
    MAX_EVIDENCE_BYTES,
    MAX_RESULT_BYTES,
    Evidence,
    MapReader,
    Result,
    demands_attestation,
    session_nonce,
)
from vsockproxy.session.opening import CHALLENGE_BYTES, FEATURE_ATTESTATION

READ_BYTES = 16 * 1024


def carrier_of(sock: socket.socket) -> Carrier:
    """Sizes for the socket's family."""
    return VSOCK if sock.family == socket.AF_VSOCK else UNIX


def make_hello(
    instance: bytes,
    *,
    first_window_bytes: int,
    max_streams: int,
    services: frozenset[str] = frozenset(),
    can_attest: bool = False,
    is_challenge: bool = False,
) -> Hello:
    """A hello with a fresh first sequence number.

    Args:
        instance: 128 random bits of this end's life.
        first_window_bytes: as in `Hello`.
        max_streams: as in `Hello`.
        services: as in `Hello`.
        can_attest: of an initiator: whether it will answer a challenge.
        is_challenge: of an acceptor: whether it demands attestation; the challenge is fresh.
    """
    return Hello(
        instance=instance,
        first_sequence=secrets.randbits(32),
        first_window_bytes=first_window_bytes,
        max_streams=max_streams,
        features=frozenset({FEATURE_ATTESTATION} if can_attest or is_challenge else ()),
        services=services,
        challenge=secrets.token_bytes(CHALLENGE_BYTES) if is_challenge else None,
    )


@dataclass(frozen=True, slots=True)
class Received:
    """The first bytes of a peer."""

    preface: Hello | DedicatedPreface
    message: bytes
    """What it was read from."""
    rest: bytes
    """What followed."""


async def read_preface(sock: socket.socket, *, may_be_dedicated: bool) -> Received:
    """The peer's first bytes.

    Raises:
        PeerProtocolError: when they break the format.
        OSError: when the connection ended or failed first.
    """
    reader = PrefaceReader(may_be_dedicated=may_be_dedicated)
    while True:
        preface = reader.receive(await _receive(sock))
        if preface is not None:
            return Received(preface, reader.message, reader.rest)


@dataclass(frozen=True, slots=True)
class Greeted:
    """What the initiator knows once both hellos are there."""

    remote: Hello
    rest: bytes
    """What followed the acceptor's hello."""
    nonce: bytes | None
    """For the document that the acceptor demands; None where it demands none."""


async def greet(sock: socket.socket, hello: Hello) -> Greeted:
    """The initiator's half of the hellos.

    Raises:
        PeerProtocolError: when the peer refused, speaks no common version, or broke the format.
        OSError: when the connection ended or failed.
    """
    ours = hello.encode()
    await send_all(sock, ours)
    theirs = await read_preface(sock, may_be_dedicated=False)
    remote = theirs.preface
    assert isinstance(remote, Hello)  # the reader was told to take nothing else
    agree_on_version(hello, remote)
    is_challenged = demands_attestation(hello, remote)
    nonce = session_nonce(ours, theirs.message) if is_challenged else None
    return Greeted(remote, theirs.rest, nonce)


async def show_evidence(
    sock: socket.socket, evidence: Evidence, received: bytes = b""
) -> tuple[Result, bytes]:
    """Answer a challenge; the acceptor's result, and what followed it.

    Args:
        sock: where both hellos were exchanged.
        evidence: what there is to show.
        received: what followed the acceptor's hello.

    Raises:
        PeerProtocolError: when the result breaks the format.
        OSError: when the connection ended or failed.
    """
    await send_all(sock, evidence.encode())
    body, rest = await _read_map(sock, MapReader(MAX_RESULT_BYTES, "a result"), received)
    return Result.decode(body), rest


async def read_evidence(sock: socket.socket, received: bytes = b"") -> tuple[Evidence, bytes]:
    """The initiator's answer to a challenge, and what followed it.

    Args:
        sock: where both hellos were exchanged.
        received: what followed the initiator's hello.

    Raises:
        PeerProtocolError: when it breaks the format.
        OSError: when the connection ended or failed.
    """
    body, rest = await _read_map(sock, MapReader(MAX_EVIDENCE_BYTES, "evidence"), received)
    return Evidence.decode(body), rest


async def _read_map(sock: socket.socket, reader: MapReader, received: bytes) -> tuple[bytes, bytes]:
    body = reader.receive(received)
    while body is None:
        body = reader.receive(await _receive(sock))
    return body, reader.rest


async def _receive(sock: socket.socket) -> bytes:
    data = await receive_at_once(sock, READ_BYTES)
    if not data:
        raise ConnectionResetError("the connection ended within the opening exchange")
    return data
