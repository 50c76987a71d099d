"""Which handshakes are resumed, for how long, and what is looked at then."""

import socket
import ssl
import time
from dataclasses import dataclass

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from enclave_side.service_identity import ServiceIdentity
from tests.support.certificates import Authority
from tests.support.tls_scene import SECONDS, play
from vsockproxy.certificates.served import ServedCertificate
from vsockproxy.config.model import IngressTls
from vsockproxy.dataplane import tls_client
from vsockproxy.dataplane.loop import spawn
from vsockproxy.dataplane.sockets import receive, send_all
from vsockproxy.dataplane.tls_client import TlsClient
from vsockproxy.dataplane.tls_connection import Read, TlsConnection, Write
from vsockproxy.dataplane.tls_contexts import MOST_SESSIONS, client_context, server_context
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.dataplane.tls_records import TlsRecords
from vsockproxy.passed_memory import memory_descriptor
from vsockproxy.worker_messages import Certificate

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
NAME = "peer.test"
DAYS = 86_400.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def over(sock: socket.socket) -> tuple[Read, Write]:
    async def read() -> bytes:
        return await receive(sock, 65_536)

    async def write(data: bytes) -> None:
        await send_all(sock, data)

    return read, write


@dataclass
class Met:
    """A connection, after a byte has come from the server.

    Args:
        client: its client's end.
        server: its server's end.
        failure: of the server's handshake.
    """

    client: TlsConnection
    server: TlsConnection
    failure: str | None = None


async def meet(
    client: TlsClient | ssl.SSLContext,
    server: ssl.SSLContext,
    session: ssl.SSLSession | None = None,
    later: float = 0.0,
) -> Met:
    """Connect a client.

    Args:
        client: ours, or what another one connects with.
        server: its context.
        session: what another one asks to resume.
        later: how many seconds the server's clock is ahead.
    """
    near, far = socket.socketpair()
    with near, far:
        for sock in (near, far):
            sock.setblocking(False)
        records = TlsRecords(server, server_side=True)
        accepted = TlsConnection(*over(far), records, lambda: time.time() + later)

        async def serve() -> str | None:
            try:
                await accepted.handshake(SECONDS)
            except TlsFailed as error:
                return error.text
            await accepted.write(b"!")
            await accepted.finish()  # or OpenSSL would forget the session
            return None

        serving = spawn(serve(), "server")
        if isinstance(client, TlsClient):
            connection = await client.connect(*over(near), SECONDS)
        else:
            own = TlsRecords(client, server_side=False, server_name=NAME, session=session)
            connection = TlsConnection(*over(near), own)
            await connection.handshake(SECONDS)
        met = Met(connection, accepted, await serving)
        if met.failure is None:
            assert await connection.read() == b"!"  # and the ticket before it
        return met


def contexts(authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's, who know each other."""
    client, server = client_context(), server_context()
    client.load_verify_locations(authority.file)
    server.load_cert_chain(authority.issue(NAME))
    return client, server


# --------------------------------------------------------------------------- as client


def test_a_session_is_resumed_for_so_long_after_its_whole_handshake(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_client, "ASKING_SECONDS", 0.0)
    context, server = contexts(authority)

    async def main() -> None:
        client = TlsClient(context, NAME)

        async def is_resumed() -> bool:
            return (await meet(client, server)).client.is_resumed

        first = await meet(client, server)
        assert not first.client.is_resumed
        client.remember(first.client)
        second = await meet(client, server)
        assert second.client.is_resumed
        with monkeypatch.context() as patched:
            patched.setattr(tls_client, "SESSION_SECONDS", -1.0)
            third = await meet(client, server)  # the session has had its time
        assert not third.client.is_resumed
        client.remember(second.client)  # what began while it had time hands on nothing
        assert not await is_resumed()
        third.client.secured_at -= tls_client.SESSION_SECONDS + 1
        client.remember(third.client)
        assert not await is_resumed()
        third.client.secured_at += 10
        client.remember(third.client)
        assert await is_resumed()
        monkeypatch.setattr(tls_client, "SESSION_SECONDS", tls_client.SESSION_SECONDS - 10)
        assert not await is_resumed()

    play(main)


# --------------------------------------------------------------------------- as server


def identity_of(authority: Authority, *, wants_clients: bool) -> ServiceIdentity:
    """What a worker presents, with a certificate of the authority."""
    served = ServedCertificate.parse(authority.issue(NAME).read_bytes())
    section = IngressTls(client_ca=str(authority.file) if wants_clients else None)
    identity = ServiceIdentity("web", section)
    with open(memory_descriptor("test", served.pem), "rb") as memory:
        identity.renew(Certificate("web", served.public_key, "image"), memory.fileno())
    return identity


def known_client(authority: Authority, version: ssl.TLSVersion) -> ssl.SSLContext:
    context, _ = contexts(authority)
    context.maximum_version = version
    context.load_cert_chain(authority.issue("client.test", usage=ExtendedKeyUsageOID.CLIENT_AUTH))
    return context


def test_a_client_with_a_certificate_gets_no_ticket_of_tls_1_3(authority: Authority) -> None:
    client = known_client(authority, TLS_1_3)

    async def main() -> None:
        server = (await identity_of(authority, wants_clients=True).get()).context
        first = await meet(client, server)
        assert first.client.version == "TLSv1.3"
        session = first.client.session
        assert session is None or not session.has_ticket
        again = await meet(client, server, session)
        assert not again.server.is_resumed

    play(main)


@pytest.mark.parametrize("has_tickets", [True, False])
def test_a_client_whose_certificate_has_expired_resumes_no_session(
    authority: Authority, *, has_tickets: bool
) -> None:
    client = known_client(authority, TLS_1_2)
    if not has_tickets:
        client.options |= ssl.OP_NO_TICKET

    async def main() -> None:
        server = (await identity_of(authority, wants_clients=True).get()).context
        first = await meet(client, server)
        session = first.client.session
        assert session is not None
        assert session.has_ticket is has_tickets
        again = await meet(client, server, session)
        assert again.server.is_resumed
        assert again.failure is None
        later = await meet(client, server, session, later=3 * DAYS)
        assert later.failure == "its certificate has expired since the session that it resumes"

    play(main)


def test_a_client_without_a_certificate_resumes(authority: Authority) -> None:
    client, _ = contexts(authority)

    async def main() -> None:
        server = (await identity_of(authority, wants_clients=False).get()).context
        first = await meet(client, server)
        again = await meet(client, server, first.client.session, later=3 * DAYS)
        assert again.server.is_resumed
        assert again.failure is None

    play(main)


def test_sessions_that_clients_leave_behind_are_bounded(authority: Authority) -> None:
    ticketless, usual = contexts(authority)[0], contexts(authority)[0]
    ticketless.maximum_version = TLS_1_2
    ticketless.options |= ssl.OP_NO_TICKET
    identity = identity_of(authority, wants_clients=False)

    async def main() -> None:
        began = await identity.get()
        for _ in range(3):
            await meet(usual, (await identity.get()).context)
        assert began.context.session_stats()["number"] == 0
        for _ in range(MOST_SESSIONS + 3):
            await meet(ticketless, (await identity.get()).context)
        now = await identity.get()
        assert began.context.session_stats()["number"] == MOST_SESSIONS
        assert now.context.session_stats()["number"] == 3
        assert (now.public_key, now.origin) == (began.public_key, began.origin)

    play(main)
