"""A software module answers as the real one does, and nobody can take it for that."""

from datetime import UTC, datetime, timedelta
from hashlib import sha384
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509 import verification
from hypothesis import given
from hypothesis import strategies as st

from tests.support.nsm_server import document_fields, module_keys, module_root, software_nsm
from vsockproxy.attestation.nsm_messages import (
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    NsmDescription,
    PcrState,
    encode_attestation,
    encode_describe_nsm,
    encode_describe_pcr,
    encode_extend_pcr,
    encode_get_random,
    encode_lock_pcr,
    encode_lock_pcrs,
    parse_attestation,
    parse_describe_nsm,
    parse_describe_pcr,
    parse_extend_pcr,
    parse_get_random,
    parse_lock_pcr,
    parse_lock_pcrs,
)
from vsockproxy.attestation.software_nsm import (
    MODULE_ID,
    SOFTWARE_PCRS,
    SoftwareNsm,
    encode_payload,
)

AT = datetime(2026, 1, 31, 23, 59, 59, 500_000, UTC)
RANDOM = bytes(range(256))
ZEROS = bytes(48)


class Module:
    """A software module that is asked as the real one is."""

    def __init__(self, module: SoftwareNsm | None = None) -> None:
        self.module = module or software_nsm()

    def ask(self, request: bytes, at: datetime = AT) -> bytes:
        return self.module.answer(request, at, RANDOM)

    def attest(
        self,
        at: datetime = AT,
        *,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
    ) -> bytes:
        return parse_attestation(self.ask(encode_attestation(user_data, nonce, public_key), at))


@pytest.fixture
def module() -> Module:
    return Module()


def certificates(document: bytes) -> list[x509.Certificate]:
    """Those of a document, the leaf first and the root last."""
    fields = document_fields(document)
    return [
        x509.load_der_x509_certificate(each)
        for each in (fields["certificate"], *reversed(fields["cabundle"]))
    ]


def verified_chain(document: bytes, at: datetime) -> list[x509.Certificate]:
    """The chain as the library's own verifier builds it, with the extensions that Nitro has."""

    def check_ca(_: Any, __: x509.Certificate, extension: x509.BasicConstraints) -> None:
        assert extension.ca

    def check_leaf(_: Any, __: x509.Certificate, extension: x509.BasicConstraints) -> None:
        assert not extension.ca

    def check_signs_certificates(_: Any, __: x509.Certificate, extension: x509.KeyUsage) -> None:
        assert extension.key_cert_sign

    def check_signs(_: Any, __: x509.Certificate, extension: x509.KeyUsage) -> None:
        assert extension.digital_signature

    critical = verification.Criticality.CRITICAL
    ca_policy = (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, critical, check_ca)
        .require_present(x509.KeyUsage, critical, check_signs_certificates)
    )
    leaf_policy = (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, critical, check_leaf)
        .require_present(x509.KeyUsage, verification.Criticality.NON_CRITICAL, check_signs)
    )
    leaf, *others = certificates(document)
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([module_root().certificate]))
        .time(at)
        .max_chain_depth(8)
        .extension_policies(ca_policy=ca_policy, ee_policy=leaf_policy)
        .build_client_verifier()
    )
    return list(verifier.verify(leaf, others).chain)


def test_it_describes_itself(module: Module) -> None:
    assert parse_describe_nsm(module.ask(encode_describe_nsm())) == NsmDescription(
        (1, 0, 0), MODULE_ID, 32, tuple(range(16)), "SHA384"
    )


def test_it_gives_the_random_bytes(module: Module) -> None:
    assert parse_get_random(module.ask(encode_get_random())) == RANDOM


def test_its_first_registers_are_constants_that_anybody_can_compute(module: Module) -> None:
    values = [parse_describe_pcr(module.ask(encode_describe_pcr(index))) for index in range(32)]
    assert [each.value for each in values[:5]] == [
        sha384(b"vsockproxy software NSM, PCR0").digest(),
        sha384(b"vsockproxy software NSM, PCR1").digest(),
        sha384(b"vsockproxy software NSM, PCR2").digest(),
        ZEROS,
        sha384(ZEROS + b"i-00000000000000000").digest(),
    ]
    assert {each.value for each in values[5:]} == {ZEROS}
    assert [each.is_locked for each in values] == [True] * 16 + [False] * 16


def test_a_register_is_extended_until_it_is_locked(module: Module) -> None:
    first = parse_extend_pcr(module.ask(encode_extend_pcr(16, b"abc")))
    assert first == sha384(ZEROS + b"abc").digest()
    second = parse_extend_pcr(module.ask(encode_extend_pcr(16, b"")))
    assert second == sha384(first).digest()
    assert 16 not in document_fields(module.attest())["pcrs"]
    parse_lock_pcr(module.ask(encode_lock_pcr(16)))
    assert parse_describe_pcr(module.ask(encode_describe_pcr(16))) == PcrState(second, True)
    assert document_fields(module.attest())["pcrs"][16] == second


def test_all_registers_can_be_locked_at_once_and_again(module: Module) -> None:
    for _ in range(2):
        parse_lock_pcrs(module.ask(encode_lock_pcrs(32)))
    parse_lock_pcrs(module.ask(encode_lock_pcrs(0)))
    assert list(document_fields(module.attest())["pcrs"]) == list(range(32))


REFUSED: dict[str, tuple[object, str]] = {
    "a register of the image": ({"ExtendPCR": {"index": 0, "data": b"a"}}, "ReadOnlyIndex"),
    "to lock it": ({"LockPCR": {"index": 15}}, "ReadOnlyIndex"),
    "a register too far": ({"DescribePCR": {"index": 32}}, "InvalidIndex"),
    "a negative register": ({"LockPCR": {"index": -1}}, "InvalidIndex"),
    "too many registers": ({"LockPCRs": {"range": 33}}, "InvalidIndex"),
    "a range of text": ({"LockPCRs": {"range": "1"}}, "InvalidArgument"),
    "an index that is true": ({"DescribePCR": {"index": True}}, "InvalidArgument"),
    "no index": ({"DescribePCR": {}}, "InvalidArgument"),
    "data of text": ({"ExtendPCR": {"index": 16, "data": "a"}}, "InvalidArgument"),
    "a nonce of text": ({"Attestation": {"nonce": "a"}}, "InvalidArgument"),
    "a nonce too long": ({"Attestation": {"nonce": bytes(1025)}}, "InvalidArgument"),
    "an empty key": ({"Attestation": {"public_key": b""}}, "InvalidArgument"),
    "an unknown name": ("Encrypt", "InvalidOperation"),
    "an unknown name with arguments": ({"Encrypt": {}}, "InvalidOperation"),
    "a name that needs arguments": ("LockPCR", "InvalidOperation"),
    "a list": ([], "InvalidOperation"),
    "two names": ({"GetRandom": {}, "LockPCR": {}}, "InvalidOperation"),
    "arguments in a list": ({"LockPCR": [16]}, "InvalidOperation"),
}


@pytest.mark.parametrize(("request_", "code"), REFUSED.values(), ids=REFUSED)
def test_a_refused_request(module: Module, request_: object, code: str) -> None:
    assert cbor2.loads(module.ask(cbor2.dumps(request_))) == {"Error": code}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"", "InvalidOperation"),
        (b"\xff", "InvalidOperation"),
        (encode_get_random() + b"\0", "InvalidOperation"),
        (bytes(MAX_REQUEST_BYTES + 1), "InputTooLarge"),
    ],
    ids=["nothing", "no CBOR", "a byte more", "too long"],
)
def test_bytes_that_are_no_request(module: Module, request_: bytes, code: str) -> None:
    assert cbor2.loads(module.ask(request_)) == {"Error": code}


@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(request_: bytes) -> None:
    answered = software_nsm().answer(request_, AT, RANDOM)
    assert cbor2.loads(answered)
    assert len(answered) <= MAX_RESPONSE_BYTES


def test_a_document_is_built_as_the_newest_of_nitro_are(module: Module) -> None:
    document = module.attest(user_data=b"", nonce=b"abc")
    assert document.startswith(bytes.fromhex("8444a1013822a059"))
    protected, unprotected, payload, signature = cbor2.loads(document)
    assert (protected, unprotected, len(signature)) == (bytes.fromhex("a1013822"), {}, 96)
    assert (payload[:1], payload[-1:]) == (b"\xbf", b"\xff")
    fields = cbor2.loads(payload)
    assert list(fields) == [
        *("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"),
        *("public_key", "user_data", "nonce"),
    ]
    assert fields["timestamp"] == 1769903999500
    assert (fields["module_id"], fields["digest"]) == (MODULE_ID, "SHA384")
    assert [fields[name] for name in ("public_key", "user_data", "nonce")] == [None, b"", b"abc"]
    assert list(fields["pcrs"]) == list(range(16))
    assert len(fields["cabundle"]) == 4
    assert max(map(len, (fields["certificate"], *fields["cabundle"]))) <= 1024


def test_the_longest_document_fits_into_a_response(module: Module) -> None:
    module.ask(encode_lock_pcrs(32))
    longest = bytes(1024)
    answered = module.ask(encode_attestation(longest, longest, longest))
    assert len(parse_attestation(answered)) < MAX_RESPONSE_BYTES


def test_the_signature_is_the_leafs(module: Module) -> None:
    protected, _, payload, signature = cbor2.loads(module.attest(nonce=b"abc"))
    r, s = (int.from_bytes(half, "big") for half in (signature[:48], signature[48:]))
    leaf = x509.load_der_x509_certificate(cbor2.loads(payload)["certificate"])
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA384()))


def test_the_chain_is_as_nitros_is(module: Module) -> None:
    document = module.attest()
    chain = certificates(document)
    leaf, root = chain[0], chain[-1]
    assert root == module_root().certificate
    assert verified_chain(document, AT) == chain
    for certificate, issuer in zip(chain, [*chain[1:], root], strict=True):
        certificate.verify_directly_issued_by(issuer)
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP384R1)
        assert certificate.version is x509.Version.v3
        assert certificate.signature_algorithm_oid == x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384
    constraints = [each.extensions.get_extension_for_class(x509.BasicConstraints) for each in chain]
    assert [(each.critical, each.value.ca, each.value.path_length) for each in constraints] == [
        *((True, False, None), (True, True, 0), (True, True, 1)),
        *((True, True, 2), (True, True, None)),
    ]
    lifetimes = [each.not_valid_after_utc - each.not_valid_before_utc for each in chain[:4]]
    assert lifetimes == [
        timedelta(hours=3, seconds=3),
        timedelta(hours=24),
        timedelta(days=5, hours=18),
        timedelta(days=20, hours=1),
    ]
    assert {type(each.value) for each in leaf.extensions} == {x509.BasicConstraints, x509.KeyUsage}
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).critical
    usages = [each.extensions.get_extension_for_class(x509.KeyUsage).value for each in chain]
    assert [each.digital_signature for each in usages] == [True, False, True, True, True]
    assert [each.content_commitment for each in usages] == [True, False, False, False, False]
    assert [each.key_cert_sign for each in usages] == [False, True, True, True, True]
    assert [each.crl_sign for each in usages] == [False, False, True, True, True]


def test_every_name_says_that_it_is_software(module: Module) -> None:
    for certificate in certificates(module.attest()):
        name = certificate.subject.rfc4514_string()
        assert "software NSM" in name
        assert "nitro-enclaves" not in name
        assert "aws" not in name.lower()


def test_a_leaf_signs_for_a_while_and_is_issued_anew(module: Module) -> None:
    first = certificates(module.attest(AT))
    assert certificates(module.attest(AT + timedelta(hours=2, minutes=15))) == first
    later = AT + timedelta(hours=2, minutes=15, seconds=1)
    second = certificates(module.attest(later))
    assert second[0] != first[0]
    assert second[-1] == first[-1]
    for document_at in (later, later + timedelta(days=90), AT - timedelta(days=1)):
        document = module.attest(document_at)
        assert verified_chain(document, document_at) == certificates(document)
        leaf = certificates(document)[0]
        assert leaf.not_valid_before_utc <= document_at <= leaf.not_valid_after_utc


def test_a_document_outlives_its_leaf_by_nothing(module: Module) -> None:
    document = module.attest(AT)
    with pytest.raises(verification.VerificationError):
        verified_chain(document, AT + timedelta(hours=3, seconds=1))


def test_another_module_has_another_register_4() -> None:
    module_id = "i-0de38b2b6853cc9e8-enc0193685e7fee7d85"
    module = Module(software_nsm(module_id=module_id, pcrs={0: ZEROS, 1: ZEROS, 2: ZEROS}))
    fields = document_fields(module.attest())
    assert fields["module_id"] == module_id
    # That of a real document of this instance: base-nitro-validator-2024.
    assert fields["pcrs"][4] == sha384(ZEROS + b"i-0de38b2b6853cc9e8").digest()
    assert [fields["pcrs"][index] for index in range(3)] == [ZEROS] * 3
    assert SOFTWARE_PCRS[0] != ZEROS


def test_registers_outlive_the_module(module: Module) -> None:
    module.ask(encode_extend_pcr(20, b"abc"))
    module.ask(encode_lock_pcr(21))
    registers = module.module.registers
    assert list(registers) == list(range(16, 32))
    again = Module(SoftwareNsm(module_root(), module_keys(), registers=registers))
    assert again.module.registers == registers
    assert document_fields(again.attest())["pcrs"].keys() == {*range(16), 21}


def test_a_payload_may_have_its_length_at_its_front() -> None:
    assert encode_payload({"a": 1}, is_indefinite=False) == bytes.fromhex("a1616101")
    assert encode_payload({"a": 1}) == bytes.fromhex("bf616101ff")
