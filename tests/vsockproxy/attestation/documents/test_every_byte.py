"""One real document, changed at every byte and cut at every length."""

import time
from collections import Counter

import pytest

from tests.support.real_documents import REAL_DOCUMENTS
from vsockproxy.attestation.documents import (
    AWS_ROOT,
    DocumentRefused,
    Reason,
    Requirements,
    parse_unverified,
    verify_document,
)

DOCUMENT = REAL_DOCUMENTS["fastcrypto-indefinite-map-2025"]

REQUIRED = frozenset(
    {
        *(Reason.DEBUG_MODE, Reason.TOO_OLD, Reason.FROM_THE_FUTURE, Reason.NONCE_MISMATCH),
        *(Reason.PCR_MISSING, Reason.PCR_MISMATCH),
        *(Reason.USER_DATA_MISMATCH, Reason.PUBLIC_KEY_MISMATCH),
    }
)
EXPECTED = frozenset(Reason) - REQUIRED - {Reason.PCR4_MISMATCH}
"""A changed document is no genuine one, so nobody looks at what it says."""

MOST_CPU_SECONDS = 1.0
"""For one of them; a genuine one takes some milliseconds."""


def verify(data: bytes, *, at_its_own_time: bool) -> None:
    """Verify as the command does."""
    at = parse_unverified(data).claimed_time if at_its_own_time else DOCUMENT.time
    verify_document(data, Requirements(allow_debug=True), at)


def refusal(data: bytes, *, at_its_own_time: bool = False) -> Reason:
    """Why a document that is not genuine is refused, in a bounded time."""
    began = time.process_time()
    with pytest.raises(DocumentRefused) as caught:
        verify(data, at_its_own_time=at_its_own_time)
    assert time.process_time() - began < MOST_CPU_SECONDS
    assert caught.value.text.isprintable()
    return caught.value.reason


def test_a_flipped_bit_of_any_byte_is_refused() -> None:
    genuine = DOCUMENT.data
    reasons: Counter[Reason] = Counter()
    for position in range(len(genuine)):
        changed = bytearray(genuine)
        changed[position] ^= 1 << position % 8
        reasons[refusal(bytes(changed))] += 1

    assert reasons.total() == len(genuine)
    assert set(reasons) <= EXPECTED
    # Every byte of the root, and most of those that no other rule is for.
    assert reasons[Reason.UNTRUSTED_ROOT] == len(AWS_ROOT)
    assert reasons[Reason.BAD_SIGNATURE] > 900
    assert reasons[Reason.CERTIFICATE_SIGNATURE] > 900


def test_a_flipped_byte_is_refused_at_the_time_that_it_claims_too() -> None:
    genuine = DOCUMENT.data
    begin = genuine.index(b"timestamp")
    for position in (*range(begin - 60, begin + 60), *range(len(genuine) - 100, len(genuine))):
        changed = bytearray(genuine)
        changed[position] ^= 0xFF
        assert refusal(bytes(changed), at_its_own_time=True) in EXPECTED


def test_a_cut_at_any_length_is_refused() -> None:
    genuine = DOCUMENT.data
    reasons = {refusal(genuine[:length]) for length in range(len(genuine))}
    assert reasons == {Reason.TRUNCATED}
