"""Two ends of TLS in memory: what the engine says of peers that are not what they should be."""

import ssl
import warnings
from collections.abc import Callable

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.certificates import Authority
from vsockproxy.dataplane.tls_contexts import client_context, server_context
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.dataplane.tls_records import CHUNK_BYTES, TlsRecords

ROOM = memoryview(bytearray(2 * CHUNK_BYTES))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


class Ends:
    """A client and a server that trust one authority."""

    def __init__(self, authority: Authority) -> None:
        self.client_context = client_context()
        self.client_context.load_verify_locations(authority.file)
        self.server_context = server_context()
        self.server_context.load_cert_chain(authority.issue("peer.test"))

    def make(self) -> None:
        self.client = TlsRecords(self.client_context, server_side=False, server_name="peer.test")
        self.server = TlsRecords(self.server_context, server_side=True)

    def shake_hands(self) -> None:
        """Both handshakes."""
        self.make()
        while not (self.client.handshake() & self.pass_on(self.client, self.server)):
            pass

    def pass_on(self, source: TlsRecords, target: TlsRecords) -> bool:
        """Bring what one has to say to the other and back; whether both are done."""
        feed(target, source.take())
        is_done = target.handshake()
        feed(source, target.take())
        return is_done


def feed(records: TlsRecords, data: bytes) -> None:
    for start in range(0, len(data), CHUNK_BYTES):
        records.feed(memoryview(data)[start : start + CHUNK_BYTES])


def decrypt(records: TlsRecords, data: bytes) -> bytes:
    """All plaintext of some records."""
    plain = b""
    for start in range(0, len(data), CHUNK_BYTES):
        records.feed(memoryview(data)[start : start + CHUNK_BYTES])
        plain += bytes(ROOM[: records.decrypt(ROOM)])
    return plain


@pytest.fixture
def ends(authority: Authority) -> Ends:
    return Ends(authority)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_what_one_says_the_other_hears(ends: Ends, version: ssl.TLSVersion) -> None:
    ends.client_context.maximum_version = version
    ends.shake_hands()
    data = bytes(range(256)) * 256
    for source, target in ((ends.client, ends.server), (ends.server, ends.client)):
        source.encrypt(memoryview(data))
        assert decrypt(target, source.take()) == data
        source.close_notify()
        assert decrypt(target, source.take() + b"what follows is ignored") == b""
        assert target.has_peer_ended


def test_a_direction_ends_by_itself(ends: Ends) -> None:
    ends.shake_hands()
    ends.client.close_notify()
    decrypt(ends.server, ends.client.take())
    ends.server.encrypt(memoryview(b"still"))
    assert decrypt(ends.client, ends.server.take()) == b"still"


def _old(ends: Ends) -> None:
    ends.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ends.client_context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ends.client_context.minimum_version = ssl.TLSVersion.TLSv1
        ends.client_context.maximum_version = ssl.TLSVersion.TLSv1_1


def _without_common_cipher(ends: Ends) -> None:
    ends.client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    ends.client_context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")


def _without_certificate(ends: Ends) -> None:
    ends.server_context.verify_mode = ssl.CERT_REQUIRED
    ends.client_context.maximum_version = ssl.TLSVersion.TLSv1_2


CLIENTS: dict[str, tuple[Callable[[Ends], None], str]] = {
    "of another age": (_old, "it speaks neither TLS 1.2 nor 1.3"),
    "of another cipher": (_without_common_cipher, "no common cipher"),
    "without a certificate": (_without_certificate, "it sent no client certificate"),
}


@pytest.mark.parametrize(("change", "text"), CLIENTS.values(), ids=CLIENTS)
def test_a_client_that_is_not_admitted_is_told_and_named(
    ends: Ends, authority: Authority, change: Callable[[Ends], None], text: str
) -> None:
    ends.server_context.load_verify_locations(authority.file)
    change(ends)
    ends.make()
    with pytest.raises(TlsFailed) as caught:  # noqa: PT012 — the step at which differs
        for _ in range(4):
            try:
                ends.client.handshake()
            except TlsFailed:
                break
            ends.pass_on(ends.client, ends.server)
    assert caught.value.text == text
    assert (caught.value.reason, ends.server.has_output) == ("tls_failed", True)  # the alert


NO_TLS = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it sent a plain HTTP request"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "what it sent is not TLS"),
}


@pytest.mark.parametrize(("data", "text"), NO_TLS.values(), ids=NO_TLS)
def test_what_is_no_client_is_named(ends: Ends, data: bytes, text: str) -> None:
    ends.make()
    ends.server.feed(memoryview(data))
    with pytest.raises(TlsFailed) as caught:
        ends.server.handshake()
    assert caught.value.text == text


def test_records_without_end_that_carry_nothing_are_abuse(ends: Ends, authority: Authority) -> None:
    # Tickets are the only such records that Python's ssl can be made to send. They hold the
    # client's chain: as many as a server may give come to more than is taken.
    ends.server_context.verify_mode = ssl.CERT_REQUIRED
    ends.server_context.load_verify_locations(authority.file)
    ends.server_context.num_tickets = 255
    ends.client_context.load_cert_chain(
        authority.issue("client.test", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    )
    ends.make()
    for _ in range(2):
        ends.client.handshake()
        feed(ends.server, ends.client.take())
        ends.server.handshake()
        tickets = ends.server.take()
        if ends.client.tls.version() is None:
            feed(ends.client, tickets)
    assert len(tickets) > 2 * CHUNK_BYTES
    with pytest.raises(TlsFailed, match="carry nothing"):
        decrypt(ends.client, tickets)


def test_a_server_gives_one_ticket_and_keeps_nothing(ends: Ends) -> None:
    for _ in range(20):
        ends.shake_hands()
    assert ends.server_context.session_stats()["number"] == 0
    feed(ends.client, b"")
    ends.client.decrypt(ROOM)
    session = ends.client.tls.session
    assert session is not None
    assert session.has_ticket
    again = TlsRecords(
        ends.client_context, server_side=False, server_name="peer.test", session=session
    )
    ends.make()
    ends.client = again
    while not (ends.client.handshake() & ends.pass_on(ends.client, ends.server)):
        pass
    assert again.tls.session_reused
