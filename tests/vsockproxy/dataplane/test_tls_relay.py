"""TLS over a stream between a plain program and OpenSSL's own end, both ways round."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.certificates import Authority
from tests.support.tls_scene import SECONDS, TlsScene, play, receive_all, send_pattern
from vsockproxy.dataplane.carriers import UNIX, VSOCK, Carrier
from vsockproxy.dataplane.sockets import send_all
from vsockproxy.dataplane.tls_contexts import client_context, server_context
from vsockproxy.dataplane.tls_failures import TlsFailed

ZEROS = bytes(65_536)
RESET = b"\1\0\0\0\0\0\0\0"
BULK_BYTES = 8 * 1024 * 1024 + 12345
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
ROLES = pytest.mark.parametrize("server_side", [False, True], ids=["as client", "as server"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


class Parties:
    """Contexts of both ends, made by an authority that both trust."""

    def __init__(self, authority: Authority, *, server_side: bool) -> None:
        self.server_side = server_side
        client, server = client_context(), server_context()
        client.load_verify_locations(authority.file)
        server.load_cert_chain(authority.issue("peer.test"))
        self.ours, self.peers = (server, client) if server_side else (client, server)

    @contextmanager
    def scene(self, carrier: Carrier = UNIX) -> Iterator[TlsScene]:
        scene = TlsScene(self.ours, server_side=self.server_side, carrier=carrier)
        try:
            yield scene
        finally:
            scene.close()


Act = Callable[[TlsScene, ssl.SSLSocket], Coroutine[None, None, None]]


def enact(parties: Parties, act: Act, carrier: Carrier = UNIX) -> None:
    """Let an act run once the connection stands and is relayed."""

    async def main() -> None:
        with parties.scene(carrier) as scene:
            peer = await scene.join(parties.peers)
            try:
                await act(scene, peer)
            finally:
                peer.close()

    play(main)


async def ended(scene: TlsScene) -> str:
    """How our end of the stream ended."""
    await scene.closed.wait()
    return scene.near.ended


@ROLES
@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("carrier", [UNIX, VSOCK], ids=["unix", "vsock"])
def test_bytes_arrive_whole_both_ways_at_once(
    authority: Authority, version: ssl.TLSVersion, carrier: Carrier, *, server_side: bool
) -> None:
    parties = Parties(authority, server_side=server_side)
    parties.peers.maximum_version = version

    async def act(scene: TlsScene, peer: ssl.SSLSocket) -> None:
        sent = asyncio.create_task(asyncio.to_thread(send_pattern, scene.program, BULK_BYTES))
        # One SSLSocket has one user at a time: what it sends follows what it got.
        assert await asyncio.to_thread(read_count, peer, BULK_BYTES) == BULK_BYTES
        digest = await sent
        answered = asyncio.create_task(asyncio.to_thread(send_and_end, peer, BULK_BYTES))
        assert await asyncio.to_thread(receive_all, scene.program) == digest
        scene.program.shutdown(socket.SHUT_WR)
        assert await answered == digest
        assert scene.connection.version == version.name.replace("_", ".")
        assert await ended(scene) == "finished"
        assert scene.failures == []

    enact(parties, act, carrier)


def read_count(sock: socket.socket, count: int) -> int:
    read = 0
    while read < count:
        data = sock.recv(65536)
        if not data:
            break
        read += len(data)
    return read


def send_and_end(peer: ssl.SSLSocket, count: int) -> str:
    """Send, say close_notify, wait for the other's."""
    digest = send_pattern(peer, count)
    peer.unwrap().close()
    return digest


@ROLES
def test_a_program_may_end_its_half_and_still_hear(
    authority: Authority, *, server_side: bool
) -> None:
    async def act(scene: TlsScene, peer: ssl.SSLSocket) -> None:
        scene.program.sendall(b"question")
        scene.program.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(read_count, peer, 100) == len(b"question")  # and its end
        sent = asyncio.create_task(asyncio.to_thread(send_and_end, peer, BULK_BYTES))
        assert await asyncio.to_thread(receive_all, scene.program) == await sent
        assert await ended(scene) == "finished"

    enact(Parties(authority, server_side=server_side), act)


@ROLES
def test_an_end_without_close_notify_is_a_reset(authority: Authority, *, server_side: bool) -> None:
    async def act(scene: TlsScene, peer: ssl.SSLSocket) -> None:
        await asyncio.to_thread(peer.sendall, b"half an answer")
        await asyncio.to_thread(scene.program.recv, 100)
        peer.shutdown(socket.SHUT_WR)  # the socket's own: no word of TLS
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(receive_all, scene.program)
        assert await ended(scene) == "tls_truncated"

    enact(Parties(authority, server_side=server_side), act)


@ROLES
def test_a_reset_of_the_program_is_no_end_to_the_peer(
    authority: Authority, *, server_side: bool
) -> None:
    async def act(scene: TlsScene, peer: ssl.SSLSocket) -> None:
        scene.program.sendall(b"half a question")
        assert await asyncio.to_thread(read_count, peer, 15) == 15
        scene.program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        scene.program.close()
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):  # a clean end would be b""
            await asyncio.to_thread(peer.recv, 100)

    enact(Parties(authority, server_side=server_side), act)


def test_a_changed_record_cuts_both(authority: Authority) -> None:
    async def act(scene: TlsScene, peer: ssl.SSLSocket) -> None:
        raw = socket.socket(fileno=peer.detach())
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(receive_all, scene.program)
        raw.close()
        assert await ended(scene) == "tls_failed"
        assert scene.failures == ["a record was changed on its way"]

    enact(Parties(authority, server_side=False), act)


def test_an_untrusted_peer_is_refused(authority: Authority, tmp_path: Path) -> None:
    parties = Parties(Authority(tmp_path), server_side=False)
    stranger = Parties(authority, server_side=False)

    async def main() -> str:
        with parties.scene() as scene:
            with pytest.raises(TlsFailed) as caught:
                await scene.join(stranger.peers)
            return caught.value.text

    assert play(main).startswith("unknown authority")


# --------------------------------------------------------------- before a relay


@ROLES
def test_both_know_whom_they_speak_to(authority: Authority, *, server_side: bool) -> None:
    parties = Parties(authority, server_side=server_side)
    pem = authority.issue("client.test", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    client, server = parties.ours, parties.peers
    if server_side:
        client, server = server, client
    client.load_cert_chain(pem)
    client.set_alpn_protocols(["h2", "http/1.1"])
    server.set_alpn_protocols(["http/1.1"])
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(authority.file)

    async def act(scene: TlsScene, peer: ssl.SSLSocket) -> None:
        connection = scene.connection
        assert connection.alpn == peer.selected_alpn_protocol() == "http/1.1"
        assert connection.asked_name == ("peer.test" if server_side else None)
        assert connection.peer_certificate is not None
        assert (b"client.test" if server_side else b"peer.test") in connection.peer_certificate

    enact(parties, act)


@ROLES
def test_first_bytes_can_be_read_and_answered_without_a_program(
    authority: Authority, *, server_side: bool
) -> None:
    parties = Parties(authority, server_side=server_side)

    async def main() -> None:
        with parties.scene() as scene:
            made = asyncio.create_task(scene.start(parties.peers))
            await scene.handshake()
            peer = await made
            with peer:
                peer.sendall(b"question")
                assert await scene.connection.read() == b"question"
                answer = bytes(200_000)  # more than a window
                sent = asyncio.create_task(scene.connection.write(answer))
                assert await asyncio.to_thread(read_count, peer, len(answer)) == len(answer)
                await sent
                await scene.connection.finish()
                scene.near.finish()
                await asyncio.to_thread(peer.unwrap)
                assert await scene.connection.read() == b""

    play(main)


@ROLES
def test_what_came_before_a_relay_is_relayed(authority: Authority, *, server_side: bool) -> None:
    parties = Parties(authority, server_side=server_side)

    async def main() -> None:
        with parties.scene() as scene:
            made = asyncio.create_task(scene.start(parties.peers))
            await scene.handshake()
            peer = await made
            with peer:
                sent = asyncio.create_task(asyncio.to_thread(send_pattern, peer, BULK_BYTES))
                first = await scene.connection.read()
                await send_all(scene.local, first)
                scene.attach()
                received = asyncio.create_task(asyncio.to_thread(receive_all, scene.program))
                digest = await sent
                scene.program.shutdown(socket.SHUT_WR)
                await asyncio.to_thread(peer.unwrap)
                assert await received == digest

    play(main)


@ROLES
def test_a_peer_that_says_nothing_is_given_up(authority: Authority, *, server_side: bool) -> None:
    parties = Parties(authority, server_side=server_side)

    async def main() -> None:
        with parties.scene() as scene:
            await scene.open()
            with pytest.raises(TlsFailed, match=r"not complete in 0\.05 s"):
                await scene.connection.handshake(0.05)

    play(main)


def test_a_peer_that_resets_in_the_handshake_is_named(authority: Authority) -> None:
    parties = Parties(authority, server_side=False)

    async def main() -> None:
        with parties.scene() as scene:
            await scene.open()
            scene.raw_peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            scene.raw_peer.close()
            with pytest.raises(TlsFailed, match="cut in the handshake"):
                await scene.handshake()

    play(main)


# ---------------------------------------------------------------- backpressure


MOST_UNDER_WAY = 24 * 1024 * 1024
"""Buffers of two TCP connections and a link, a window, and a chunk."""


def send_until_it_waits(sock: socket.socket) -> int:
    """Send until the socket takes nothing for a second; how many bytes it took."""
    sock.settimeout(1.0)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 4 * MOST_UNDER_WAY:
            sent += sock.send(ZEROS)
    sock.settimeout(SECONDS)
    return sent


@ROLES
def test_a_program_that_does_not_read_stops_the_peer(
    authority: Authority, *, server_side: bool
) -> None:
    async def act(scene: TlsScene, peer: ssl.SSLSocket) -> None:
        sent = await asyncio.to_thread(send_until_it_waits, peer)
        assert sent < MOST_UNDER_WAY
        taken = scene.near.bytes_received
        # What is granted beyond what the program has taken is the stream's window, and no more.
        assert scene.near.stream.receive.granted - taken <= 4 * 1024 * 1024
        read = await asyncio.to_thread(read_count, scene.program, sent // 2)
        assert read >= sent // 2

    enact(Parties(authority, server_side=server_side), act)


@ROLES
def test_a_peer_that_does_not_read_stops_the_program(
    authority: Authority, *, server_side: bool
) -> None:
    async def act(scene: TlsScene, peer: ssl.SSLSocket) -> None:
        sent = await asyncio.to_thread(send_until_it_waits, scene.program)
        assert sent < MOST_UNDER_WAY
        scene.program.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(read_count, peer, sent + 1) == sent

    enact(Parties(authority, server_side=server_side), act)
