"""The public key in a certificate, beside the `cryptography` package's reader."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import Authority
from vsockproxy.protocols.certificate import public_key_info
from vsockproxy.protocols.errors import CertificateError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    authority = Authority(tmp_path_factory.mktemp("x509"))
    pem = authority.issue("peer.test").read_bytes()
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


KEYS: dict[str, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA": rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("kind", KEYS)
def test_the_key_is_that_which_another_reader_finds(kind: str, certificate: bytes) -> None:
    key = KEYS[kind].public_key()
    template = x509.load_der_x509_certificate(certificate)
    signed = (
        x509.CertificateBuilder()
        .issuer_name(template.issuer)
        .subject_name(template.subject)
        .public_key(key)
        .serial_number(template.serial_number)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    assert public_key_info(signed.public_bytes(serialization.Encoding.DER)) == key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_a_certificate_of_version_1_has_no_version_in_it() -> None:
    tbs = b"\x02\x01\x01" + 4 * b"\x30\x00" + b"\x30\x03key"
    der = b"\x30" + bytes([len(tbs) + 2]) + b"\x30" + bytes([len(tbs)]) + tbs
    assert public_key_info(der) == b"\x30\x03key"


def test_no_beginning_of_a_certificate_is_one(certificate: bytes) -> None:
    for length in range(len(certificate)):
        with pytest.raises(CertificateError):
            public_key_info(certificate[:length])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_certificate_or_an_error(data: bytes) -> None:
    try:
        found = public_key_info(data)
    except CertificateError:
        return
    assert found in data


@given(st.data())
def test_a_changed_certificate_is_read_or_refused(certificate: bytes, data: st.DataObject) -> None:
    changed = bytearray(certificate)
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = public_key_info(bytes(changed))
    except CertificateError:
        return
    assert found in changed
