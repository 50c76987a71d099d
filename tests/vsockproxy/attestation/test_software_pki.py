"""The file with the root of a software module."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tests.support.nsm_server import module_keys, module_root
from vsockproxy.attestation.software_pki import (
    PrivateKey,
    SoftwareRootError,
    read_root,
    write_root,
)
from vsockproxy.software_nsm_keys import make_root


def _pem(key: PrivateKey | rsa.RSAPrivateKey, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _certificate() -> bytes:
    return module_root().certificate.public_bytes(Encoding.PEM)


def _called(common_name: str) -> bytes:
    """A root of that name."""
    key = module_keys().leaf
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now)
        .sign(key, SHA384())
    )
    return certificate.public_bytes(Encoding.PEM) + _pem(key)


def test_a_root_is_read_as_it_was_written() -> None:
    pem = write_root(module_root())
    root = read_root(pem)
    assert root.certificate == module_root().certificate
    assert write_root(root) == pem
    certificate, middle, key = pem.partition(b"-----BEGIN PRIVATE KEY")
    assert read_root(middle + key + certificate).der == root.der


def test_a_root_shows_no_key() -> None:
    root = module_root()
    assert "key" not in repr(root).lower().replace("keys", "")
    assert repr(module_keys()) == "ModuleKeys()"


def test_every_root_is_another() -> None:
    assert make_root().der != make_root().der


WRONG = {
    "nothing": (b"", "no certificate in PEM"),
    "a certificate alone": (_certificate(), "no private key in PEM without a passphrase"),
    "a key alone": (_pem(module_root().key), "no certificate in PEM"),
    "a key with a passphrase": (
        _certificate() + _pem(module_root().key, b"secret"),
        "no private key in PEM without a passphrase",
    ),
    "another key": (_certificate() + _pem(module_keys().leaf), "is for another key"),
    "a key of another curve": (
        _certificate() + _pem(ec.generate_private_key(ec.SECP256R1())),
        "its key is not of P-384",
    ),
    "an RSA key": (
        _certificate() + _pem(rsa.generate_private_key(65537, 2048)),
        "its key is not of P-384",
    ),
    "a name as if it were real": (
        _called("aws.nitro-enclaves"),
        "its name has 'nitro-enclaves', as if it were a real one",
    ),
}


@pytest.mark.parametrize(("pem", "text"), WRONG.values(), ids=WRONG)
def test_a_file_that_holds_no_root(pem: bytes, text: str) -> None:
    with pytest.raises(SoftwareRootError, match=text):
        read_root(pem)
