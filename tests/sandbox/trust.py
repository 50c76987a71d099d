"""A certificate authority in the forms in which programs want to be told of it."""

from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PKCS12Certificate,
    serialize_java_truststore,
)

from tests.support.certificates import Authority

TRUST_STORE_PASSWORD = "changeit"  # Java's usual one


def trust_files(authority: Authority, directory: Path) -> Mapping[str, str]:
    """Files in `directory`, by the names that `Places` has for them."""
    wgetrc = directory / "wgetrc"
    wgetrc.write_text(f"ca_certificate = {authority.file}\n")
    certificate = x509.load_pem_x509_certificate(authority.file.read_bytes())
    trust_store = directory / "authority.p12"
    trust_store.write_bytes(
        serialize_java_truststore(
            [PKCS12Certificate(certificate, b"authority")],
            BestAvailableEncryption(TRUST_STORE_PASSWORD.encode()),
        )
    )
    return {
        "authority": str(authority.file),
        "wgetrc": str(wgetrc),
        "trust_store": str(trust_store),
    }
