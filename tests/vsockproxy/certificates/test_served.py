"""Keys and chains: what a server may present, and what is wrong with what it may not."""

import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from vsockproxy.certificates.errors import CertificateError
from vsockproxy.certificates.self_signed import make_self_signed
from vsockproxy.certificates.served import MAX_PEM_BYTES, ServedCertificate

AT = datetime(2026, 3, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
MADE = make_self_signed(KEY, "web", [], AT, 1)
CHAIN = MADE.pem[MADE.pem.index(b"-----BEGIN CERTIFICATE") :]
KEY_PEM = MADE.pem[: MADE.pem.index(b"-----BEGIN CERTIFICATE")]


def test_it_is_what_was_made() -> None:
    assert ServedCertificate.parse(MADE.pem) == MADE
    assert ServedCertificate.join(CHAIN, KEY_PEM) == MADE
    assert MADE.public_key == KEY.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


def test_a_chain_keeps_its_order() -> None:
    other = make_self_signed(ec.generate_private_key(ec.SECP256R1()), "issuer", [], AT, 2)
    issuer = other.pem[other.pem.index(b"-----BEGIN CERTIFICATE") :]
    served = ServedCertificate.join(CHAIN + issuer, KEY_PEM)
    names = [each.subject.rfc4514_string() for each in x509.load_pem_x509_certificates(served.pem)]
    assert names == ["CN=web", "CN=issuer"]
    assert (served.public_key, served.not_after) == (MADE.public_key, MADE.not_after)


def test_a_key_in_an_older_form() -> None:
    old = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert ServedCertificate.join(CHAIN, old) == MADE


def pem_of(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


SEALED = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def of_version_2(pem: bytes) -> bytes:
    """The same certificate, but for the version that it says it is of."""
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    third, second = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"
    assert der.count(third) == 1
    return ssl.DER_cert_to_PEM_cert(der.replace(third, second)).encode()


REFUSED = {
    "a certificate of version 2": (of_version_2(CHAIN), KEY_PEM, "no certificate in PEM"),
    "nothing": (b"", b"", "no certificate in PEM"),
    "a chain that is text": (b"hello", KEY_PEM, "no certificate in PEM"),
    "a chain that is cut off": (CHAIN[:-40], KEY_PEM, "no certificate in PEM"),
    "a key in place of the chain": (KEY_PEM, KEY_PEM, "no certificate in PEM"),
    "a chain in place of the key": (CHAIN, CHAIN, "no private key in PEM"),
    "a key that is cut off": (CHAIN, KEY_PEM[:-40], "no private key in PEM"),
    "another key": (CHAIN, pem_of(ec.generate_private_key(ec.SECP256R1())), "not that of the"),
    "a key of another kind": (CHAIN, pem_of(ed25519.Ed25519PrivateKey.generate()), "not that of"),
    "an encrypted key": (CHAIN, SEALED, "encrypted"),
    "too much": (CHAIN + b"\n" * 2 * MAX_PEM_BYTES, KEY_PEM, "which no chain has"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_why_and_no_secret(case: str) -> None:
    chain, key, text = REFUSED[case]
    with pytest.raises(CertificateError, match=text) as caught:
        ServedCertificate.join(chain, key)
    secret = KEY_PEM.splitlines()[1].decode()
    assert secret not in repr(caught.value)


def test_its_text_shows_no_key() -> None:
    assert KEY_PEM.splitlines()[1].decode() not in repr(MADE)
