"""TLS over a stream between a plain program and OpenSSL's own end, both ways round."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.tls_scene import TlsScene, play, receive_all, send_pattern
from vsockproxy.dataplane.carriers import UNIX, VSOCK, Carrier
from vsockproxy.dataplane.tls_contexts import client_context, server_context
from vsockproxy.dataplane.tls_failures import TlsFailed

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
        scene.program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
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
