from datetime import UTC, datetime, timedelta

import pytest

from tests.support.real_documents import FOLDER, REAL_DOCUMENTS, RealDocument
from vsockproxy.attestation.documents import (
    AWS_ROOT,
    DocumentRefused,
    Reason,
    Requirements,
    read_roots,
    verify_document,
)
from vsockproxy.attestation.documents.cose import parse_cose_sign1
from vsockproxy.attestation.documents.payload import parse_payload

REASONS = {
    "eternis-bad-signature-2024": Reason.BAD_SIGNATURE,
    "evervault-debug-2022": Reason.DEBUG_MODE,
    "marlin-oyster-mock-root": Reason.UNTRUSTED_ROOT,
}
"""Of those that are refused at their own time; all others are verified."""

ALLOW_DEBUG = Requirements(allow_debug=True)

documents = pytest.mark.parametrize("name", REAL_DOCUMENTS)


def reason_of(document: RealDocument, requirements: Requirements, at: datetime) -> Reason | None:
    """Why it is refused; None if it is not."""
    try:
        verify_document(document.data, requirements, at)
    except DocumentRefused as refused:
        return refused.reason
    return None


def is_expected(document: RealDocument, *, allow_debug: bool) -> bool:
    """Whether its note expects it to be verified at its own time."""
    expected = document.note["expected"]
    return bool(
        expected["valid_at_document_timestamp"]
        and (allow_debug or not expected["valid_with_debug_allowed_only"])
    )


@documents
def test_the_outcome_is_that_of_its_note(name: str) -> None:
    document = REAL_DOCUMENTS[name]

    reason = reason_of(document, Requirements(), document.time)

    assert reason is REASONS.get(name)
    assert (reason is None) == is_expected(document, allow_debug=False)


@documents
def test_the_outcome_with_debug_mode_allowed_is_that_of_its_note(name: str) -> None:
    document = REAL_DOCUMENTS[name]
    reason = reason_of(document, ALLOW_DEBUG, document.time)
    assert (reason is None) == is_expected(document, allow_debug=True)


@documents
def test_none_is_valid_at_another_time(name: str) -> None:
    document = REAL_DOCUMENTS[name]
    otherwise = REASONS[name] if name == "marlin-oyster-mock-root" else None
    hours = timedelta(hours=4)
    for at, reason in (
        (document.time - hours, Reason.NOT_YET_VALID),
        (document.time + hours, Reason.EXPIRED),
        (datetime(2026, 11, 1, tzinfo=UTC), Reason.EXPIRED),
    ):
        assert reason_of(document, ALLOW_DEBUG, at) is (otherwise or reason)


@documents
def test_it_says_what_its_note_says(name: str) -> None:
    document = REAL_DOCUMENTS[name]
    note = document.note

    payload = parse_payload(parse_cose_sign1(document.data).payload)

    assert payload.module_id == note["module_id"]
    assert payload.timestamp_ms == note["timestamp_ms"]
    assert sorted(payload.pcrs) == note["pcr_indexes"]
    assert {
        str(number): value.hex() for number, value in payload.pcrs.items() if any(value)
    } == note["nonzero_pcrs"]
    for field in ("public_key", "user_data", "nonce"):
        value = getattr(payload, field)
        assert (value if value is None else value.hex()) == note[f"{field}_hex"]


@documents
def test_a_verified_one_expires_when_its_note_says(name: str) -> None:
    document = REAL_DOCUMENTS[name]
    if not is_expected(document, allow_debug=True):
        assert reason_of(document, ALLOW_DEBUG, document.time) is not None
        return
    verified = verify_document(document.data, ALLOW_DEBUG, document.time)
    assert verified.expires_at == datetime.fromisoformat(document.note["earliest_chain_expiry"])
    assert verified.is_debug == document.note["debug_mode"]


def test_a_mocks_document_is_refused_though_its_root_be_trusted() -> None:
    document = REAL_DOCUMENTS["marlin-oyster-mock-root"]
    root = parse_payload(parse_cose_sign1(document.data).payload).cabundle[0]
    reason = reason_of(document, Requirements(roots=(root,)), document.time)
    assert reason is Reason.BASIC_CONSTRAINTS


def test_the_root_in_the_vectors_is_the_pinned_one() -> None:
    assert read_roots((FOLDER / "aws-nitro-root-g1.pem").read_bytes()) == (AWS_ROOT,)
