"""The key of a connection against a document."""

import hashlib
from datetime import UTC, datetime

import pytest

from tests.support.nsm_server import attested, module_root
from vsockproxy.attestation.documents import DocumentRefused, Requirements
from vsockproxy.attestation.nsm_messages import MAX_FIELD_BYTES
from vsockproxy.attestation.software_nsm import SOFTWARE_PCRS
from vsockproxy.attestation.tls_binding import (
    KeyOrigin,
    bound_fields,
    bound_user_data,
)
from vsockproxy.attestation.tls_verification import (
    ConnectionRefused,
    TlsReason,
    verify_tls_document,
)

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
NONCE = b"nonce of ours"
KEY = b"0Y0\x13" + bytes(87)
LONG_KEY = bytes(MAX_FIELD_BYTES + 1)

REQUIREMENTS = Requirements(roots=(module_root().der,), pcrs=SOFTWARE_PCRS, nonce=NONCE)


def document(key: bytes, origin: KeyOrigin = "generated", nonce: bytes = NONCE) -> bytes:
    user_data, public_key = bound_fields(key, origin)
    return attested(user_data=user_data, public_key=public_key, nonce=nonce, at=AT)


def test_what_a_document_holds_of_a_key() -> None:
    digest = hashlib.sha256(KEY).hexdigest().encode()
    line = b"vsockproxy tls-key v1 generated sha256:" + digest
    assert bound_fields(KEY, "generated") == (line, KEY)
    assert bound_fields(bytes(MAX_FIELD_BYTES), "generated")[1] == bytes(MAX_FIELD_BYTES)
    assert bound_fields(LONG_KEY, "image") == (bound_user_data(LONG_KEY, "image"), None)
    assert len(bound_user_data(LONG_KEY, "generated")) < 128


@pytest.mark.parametrize("key", [KEY, LONG_KEY], ids=["a key", "a key too long for its field"])
def test_the_key_of_the_connection(key: bytes) -> None:
    verified = verify_tls_document(document(key), REQUIREMENTS, key, AT)
    assert verified.nonce == NONCE


def test_another_key() -> None:
    with pytest.raises(ConnectionRefused) as caught:
        verify_tls_document(document(KEY), REQUIREMENTS, KEY[:-1] + b"x", AT)
    assert caught.value.reason is TlsReason.KEY_MISMATCH


def test_the_line_of_the_key_and_another_key_beside_it() -> None:
    data = attested(
        user_data=bound_user_data(KEY, "generated"), public_key=b"other", nonce=NONCE, at=AT
    )
    with pytest.raises(ConnectionRefused) as caught:
        verify_tls_document(data, REQUIREMENTS, KEY, AT)
    assert caught.value.reason is TlsReason.KEY_MISMATCH


def test_a_key_of_the_image() -> None:
    data = document(KEY, "image")
    with pytest.raises(ConnectionRefused) as caught:
        verify_tls_document(data, REQUIREMENTS, KEY, AT)
    assert caught.value.reason is TlsReason.KEY_FROM_IMAGE
    assert verify_tls_document(data, REQUIREMENTS, KEY, AT, allow_image_key=True).nonce == NONCE
    with pytest.raises(ConnectionRefused) as caught:
        verify_tls_document(data, REQUIREMENTS, KEY + b"x", AT, allow_image_key=True)
    assert caught.value.reason is TlsReason.KEY_MISMATCH


def test_the_document_is_verified_first() -> None:
    with pytest.raises(DocumentRefused, match="nonce_mismatch"):
        verify_tls_document(document(KEY, nonce=b"another"), REQUIREMENTS, KEY, AT)


def test_without_a_nonce_nothing_is_fresh() -> None:
    for nonce in (None, b""):
        with pytest.raises(ValueError, match="nonce"):
            verify_tls_document(
                document(KEY), Requirements(roots=(module_root().der,), nonce=nonce), KEY, AT
            )
