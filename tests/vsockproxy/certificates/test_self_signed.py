"""Self-signed certificates, and when they are renewed."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vsockproxy.certificates.renewal import (
    FIRST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    renewal_time,
    retry_seconds,
)
from vsockproxy.certificates.self_signed import LIFETIME, make_self_signed, renew_self_signed
from vsockproxy.certificates.served import ServedCertificate

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate_of(served: ServedCertificate) -> x509.Certificate:
    (certificate,) = x509.load_pem_x509_certificates(served.pem)
    return certificate


NAMES = {
    "no name is the service's": ([], [x509.DNSName("web")]),
    "names": (["a.example", "b.example"], [x509.DNSName("a.example"), x509.DNSName("b.example")]),
    "an IPv4 address": (["192.0.2.1"], [x509.IPAddress(ip_address("192.0.2.1"))]),
    "an IPv6 address": (["2001:db8::1"], [x509.IPAddress(ip_address("2001:db8::1"))]),
}


@pytest.mark.parametrize("case", NAMES)
def test_the_names_of_a_certificate(case: str) -> None:
    names, expected = NAMES[case]
    certificate = certificate_of(make_self_signed(KEY, "web", names, AT, 7))
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(found.value) == expected
    assert certificate.serial_number == 7
    assert certificate.public_key() == KEY.public_key()


def test_it_holds_for_a_while_and_began_a_day_ago() -> None:
    served = make_self_signed(KEY, "web", [], AT, 1)
    assert served.not_before == AT - timedelta(days=1)
    assert served.not_after == AT + LIFETIME


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()


def test_openssl_trusts_it_where_it_is_told_to(tmp_path: Path) -> None:
    served = make_self_signed(KEY, "web", ["a.example", "192.0.2.1"], datetime.now(UTC), 1)
    file = tmp_path / "both.pem"
    file.write_bytes(served.pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    chain = served.pem[served.pem.index(b"-----BEGIN CERTIFICATE") :].decode()
    client.load_verify_locations(cadata=chain)
    handshake(client, server, "a.example")
    handshake(client, server, "192.0.2.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(client, server, "b.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        handshake(ssl.create_default_context(), server, "a.example")


def test_a_renewal_keeps_the_key() -> None:
    former = make_self_signed(KEY, "web", ["a.example"], AT, 1)
    at = AT + timedelta(days=60)
    renewed = renew_self_signed(former, "web", ["a.example"], at, 2)
    assert renewed.public_key == former.public_key
    assert renewed.not_after == at + LIFETIME
    assert certificate_of(renewed).serial_number == 2


def test_it_is_due_well_before_its_end() -> None:
    served = make_self_signed(KEY, "web", [], AT, 1)
    due_at = renewal_time(served.not_before, served.not_after)
    assert served.not_after - due_at > timedelta(days=30)
    assert due_at - AT > timedelta(days=55)


def test_attempts_that_fail_become_rarer() -> None:
    delays = [retry_seconds(failures, 0.5) for failures in range(1, 40)]
    assert delays == sorted(delays)
    assert delays[0] == FIRST_RETRY_SECONDS * 0.75
    assert delays[-1] == MOST_RETRY_SECONDS * 0.75
    assert retry_seconds(3, 0.0) < retry_seconds(3, 0.9)
