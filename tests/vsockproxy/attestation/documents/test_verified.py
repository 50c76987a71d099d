from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.forged_documents import (
    AT,
    CHAIN,
    LEAF,
    MODULE_ID,
    PCRS,
    PROTECTED,
    ROOT,
    TIMESTAMP_MS,
    ZONE,
    Forge,
    measurement,
)
from tests.support.raw_cbor import (
    ARRAY,
    BREAK,
    begin,
    head,
    indefinite_map,
    indefinite_throughout,
    tagged,
)
from vsockproxy.attestation.documents import (
    AWS_ROOT,
    DocumentRefused,
    Reason,
    RequirementError,
    Requirements,
    parse_unverified,
    read_roots,
    verify_document,
)
from vsockproxy.attestation.documents.aws_root import AWS_ROOT_SHA256

FORGE = Forge()
DEBUG = {**PCRS, 0: bytes(48), 1: bytes(48), 2: bytes(48)}


def required(forge: Forge = FORGE, **requirements: Any) -> Requirements:
    return Requirements(roots=(forge.root,), **requirements)


def _indefinite_envelope(forge: Forge) -> bytes:
    items = [cbor2.dumps(item) for item in cbor2.loads(forge.document())]
    return begin(ARRAY) + b"".join(items) + BREAK


def _long_envelope(forge: Forge) -> bytes:
    items = [cbor2.dumps(item) for item in cbor2.loads(forge.document())]
    return head(ARRAY, 4, size=8) + b"".join(items)


def _without_optional(forge: Forge) -> bytes:
    fields = {key: value for key, value in forge.fields.items() if value is not None}
    return forge.envelope(cbor2.dumps(fields))


ACCEPTED: dict[str, Callable[[Forge], bytes]] = {
    "as older hardware writes it": lambda forge: forge.document(),
    "as newer hardware writes it": lambda forge: forge.envelope(indefinite_map(forge.fields)),
    "with its tag": lambda forge: tagged(18, forge.document()),
    "newer, with its tag": lambda forge: tagged(18, forge.envelope(indefinite_map(forge.fields))),
    "with indefinite lengths throughout": lambda forge: forge.envelope(
        indefinite_throughout(forge.fields)
    ),
    "in an array of indefinite length": _indefinite_envelope,
    "in an array with a long head": _long_envelope,
    "without what is not used": _without_optional,
    "in another order": lambda forge: forge.envelope(
        cbor2.dumps(dict(reversed(forge.fields.items())))
    ),
    "with a field that nobody knows": lambda forge: forge.document(later={"more": [1, 2.5, None]}),
    "with as many levels as there may be": lambda forge: forge.document(later=[[[[[[[]]]]]]]),
    "with application PCRs": lambda forge: forge.document(
        pcrs={number: PCRS.get(number, measurement(number)) for number in range(32)}
    ),
    "with PCR0 alone": lambda forge: forge.document(pcrs={0: measurement(0)}),
    "with the longest fields": lambda forge: forge.document(
        public_key=bytes(1024), user_data=bytes(1024), nonce=bytes(1024)
    ),
    "with empty fields": lambda forge: forge.document(user_data=b"", nonce=b""),
    "at the first millisecond": lambda forge: forge.document(timestamp=1),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_genuine_document_is_verified(case: str) -> None:
    document = verify_document(ACCEPTED[case](FORGE), required(), AT)

    assert document.module_id == MODULE_ID
    assert document.digest == "SHA384"
    assert document.pcrs[0] == measurement(0)
    assert document.expires_at == AT + timedelta(hours=3)
    assert not document.is_debug


def test_what_it_says_is_in_its_fields() -> None:
    data = FORGE.document(public_key=b"key", user_data=b"", nonce=b"nonce")

    document = verify_document(data, required(), AT)

    assert document.timestamp_ms == TIMESTAMP_MS
    assert document.pcrs == PCRS
    assert (document.public_key, document.user_data, document.nonce) == (b"key", b"", b"nonce")


def test_a_verified_document_cannot_be_changed() -> None:
    document = verify_document(FORGE.document(), required(), AT)

    with pytest.raises(FrozenInstanceError):
        document.nonce = b"mine"  # type: ignore[misc]  # that is what must fail
    with pytest.raises(TypeError):
        document.pcrs[0] = bytes(48)  # type: ignore[index]  # that is what must fail


LONG_ENOUGH: dict[str, dict[int, dict[str, Any]]] = {
    "valid since this second": {ROOT: {"begins": AT}},
    "valid until this second": {LEAF: {"ends": AT}},
    "path lengths with room": {ROOT: {"path_length": 9}, ZONE: {"path_length": 5}},
    "path lengths that are just enough": {ROOT: {"path_length": 3}},
    "a critical keyUsage of the leaf": {LEAF: {"has_critical_usage": True}},
}


@pytest.mark.parametrize("case", LONG_ENOUGH)
def test_what_is_just_right_passes(case: str) -> None:
    forge = Forge(LONG_ENOUGH[case])
    assert verify_document(forge.document(), required(forge), AT).module_id == MODULE_ID


@pytest.mark.parametrize("between", [0, 1, 2, 3])
def test_a_chain_may_have_fewer_certificates(between: int) -> None:
    chain = [replace(each, path_length=None) for each in (CHAIN[0], *CHAIN[1 : 1 + between])]
    forge = Forge(chain=[*chain, CHAIN[LEAF]])
    assert verify_document(forge.document(), required(forge), AT).module_id == MODULE_ID


def test_it_expires_when_the_first_certificate_does() -> None:
    ends = AT + timedelta(minutes=7)
    forge = Forge({ZONE: {"ends": ends}})
    assert verify_document(forge.document(), required(forge), AT).expires_at == ends


def test_one_of_several_roots_is_enough() -> None:
    requirements = Requirements(roots=(AWS_ROOT, Forge().root, FORGE.root))
    assert verify_document(FORGE.document(), requirements, AT).module_id == MODULE_ID


def test_the_time_may_be_in_another_zone() -> None:
    at = AT.astimezone(timezone(timedelta(hours=-11)))
    assert verify_document(FORGE.document(), required(max_age_seconds=0), at).expires_at > at


def test_a_time_without_a_zone_is_an_error() -> None:
    with pytest.raises(ValueError, match="time zone"):
        verify_document(FORGE.document(), required(), AT.replace(tzinfo=None))


MET: dict[str, dict[str, Any]] = {
    "one measurement": {"pcrs": {0: measurement(0)}},
    "several measurements": {"pcrs": {0: measurement(0), 4: PCRS[4], 8: bytes(48)}},
    "the nonce": {"nonce": b"nonce"},
    "the user data": {"user_data": b""},
    "the public key": {"public_key": b"key"},
    "a minute old": {"max_age_seconds": 60},
    "all of it": {
        "pcrs": {0: measurement(0)},
        "nonce": b"nonce",
        "user_data": b"",
        "public_key": b"key",
        "max_age_seconds": 60.0,
    },
}


@pytest.mark.parametrize("seconds", [-60, 60])
@pytest.mark.parametrize("case", MET)
def test_requirements_that_are_met(case: str, seconds: int) -> None:
    forge = Forge({position: {"begins": AT - timedelta(hours=1)} for position in range(5)})
    data = forge.document(nonce=b"nonce", user_data=b"", public_key=b"key")
    at = AT + timedelta(seconds=seconds)
    assert verify_document(data, required(forge, **MET[case]), at).nonce == b"nonce"


def test_debug_mode_is_taken_where_it_is_allowed() -> None:
    data = FORGE.document(pcrs=DEBUG)

    document = verify_document(data, required(allow_debug=True, pcrs={0: bytes(48)}), AT)

    assert document.is_debug


def test_zeros_in_pcr0_alone_are_not_debug_mode() -> None:
    data = FORGE.document(pcrs={**PCRS, 0: bytes(48)})
    assert not verify_document(data, required(), AT).is_debug


SENSELESS = {
    "no roots": ({"roots": ()}, "no root certificate"),
    "PCR0 of zeros": ({"pcrs": {0: bytes(48)}}, "every enclave in debug mode"),
    "PCR0 of more zeros": ({"pcrs": {0: bytes(64)}}, "every enclave in debug mode"),
    "PCR32": ({"pcrs": {32: bytes(48)}}, "PCR32: there are PCR0 to PCR31"),
    "PCR-1": ({"pcrs": {-1: bytes(48)}}, "there are PCR0 to PCR31"),
    "a cut measurement": ({"pcrs": {1: bytes(47)}}, "PCR1: 47 bytes"),
    "an age below zero": ({"max_age_seconds": -1}, "-1 seconds old"),
    "an age without an end": ({"max_age_seconds": float("inf")}, "inf seconds"),
    "no number for an age": ({"max_age_seconds": float("nan")}, "nan seconds"),
}


@pytest.mark.parametrize("case", SENSELESS)
def test_senseless_requirements_are_an_error(case: str) -> None:
    arguments, text = SENSELESS[case]
    with pytest.raises(RequirementError, match=text):
        Requirements(**arguments)  # type: ignore[arg-type]  # the table has every kind


def test_requirements_keep_their_measurements() -> None:
    pcrs = {0: measurement(0)}
    requirements = required(pcrs=pcrs)
    pcrs[0] = measurement(1)
    assert requirements.pcrs == {0: measurement(0)}


def test_awss_root_is_pinned_by_the_fingerprint_that_aws_publishes() -> None:
    assert sha256(AWS_ROOT).hexdigest() == AWS_ROOT_SHA256
    assert Requirements().roots == (AWS_ROOT,)


def test_roots_are_read_and_keys_beside_them_are_not() -> None:
    other = Forge()
    pem = b"A remark.\n" + FORGE.root_pem(with_key=True) + other.root_pem()
    assert read_roots(pem) == (FORGE.root, other.root)


@pytest.mark.parametrize(
    "pem",
    [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
)
def test_a_file_without_roots_is_an_error(pem: bytes) -> None:
    with pytest.raises(RequirementError, match="no PEM certificate that can be read"):
        read_roots(pem)


def test_a_key_without_a_certificate_is_an_error_that_does_not_show_it() -> None:
    key = FORGE.root_pem(with_key=True).partition(b"-----END CERTIFICATE-----\n")[2]
    with pytest.raises(RequirementError) as caught:
        read_roots(key)
    assert str(caught.value) == "no PEM certificate that can be read"


def test_an_unverified_document_gives_no_measurements_away() -> None:
    document = parse_unverified(FORGE.document())

    assert document.claimed_time == AT
    assert not {"pcrs", "nonce", "user_data", "public_key", "module_id"} & set(dir(document))
    assert measurement(0).hex() not in f"{document} {document!r}"
    assert document.for_display()["verified"] is False


def test_what_is_shown_is_what_it_says() -> None:
    data = FORGE.document(user_data=b"", nonce=b"\x00\xff")

    shown = verify_document(data, required(), AT).for_display()

    assert shown == {
        "verified": True,
        "reason": None,
        "module_id": MODULE_ID,
        "timestamp": TIMESTAMP_MS,
        "digest": "SHA384",
        "pcrs": {str(number): value.hex() for number, value in PCRS.items()},
        "public_key": None,
        "user_data": "",
        "nonce": "00ff",
    }
    assert parse_unverified(data).for_display() == {
        **shown,
        "verified": False,
        "reason": "unverified",
    }


def test_the_refusal_comes_before_anything_is_believed() -> None:
    """A document of our own, signed by its own root, meets every requirement but one."""
    forge = Forge()
    wanted: dict[str, Any] = {"pcrs": {0: measurement(0)}, "nonce": b"nonce"}
    data = forge.document(nonce=b"nonce")
    assert verify_document(data, required(forge, **wanted), AT).nonce == b"nonce"
    with pytest.raises(DocumentRefused) as caught:
        verify_document(data, required(FORGE, **wanted), AT)
    assert caught.value.reason is Reason.UNTRUSTED_ROOT


@given(st.binary(max_size=300), st.binary(min_size=96, max_size=96))
def test_any_payload_is_refused_by_a_reason(payload: bytes, signature: bytes) -> None:
    data = cbor2.dumps([PROTECTED, {}, payload, signature])
    with pytest.raises(DocumentRefused) as caught:
        verify_document(data, required(), datetime(2026, 1, 1, tzinfo=UTC))
    assert caught.value.text.isprintable()
