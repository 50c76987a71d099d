"""boto3 against the KMS of the tests: what every operation gives, with a Recipient and without."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.kms_envelopes import subject_public_key
from tests.support.kms_operations import ATTESTED
from tests.support.kms_server import KmsServer
from tests.support.nsm_server import attested
from vsockproxy.attestation.kms_envelope import open_envelope
from vsockproxy.attestation.software_nsm import SOFTWARE_PCRS

CONTEXT = {"purpose": "test", "tenant": "a"}
MEASURED = {index: value.hex() for index, value in SOFTWARE_PCRS.items()}


def recipient(key: rsa.RSAPrivateKey, **changes: Any) -> dict[str, Any]:
    document = attested(public_key=subject_public_key(key.public_key()), **changes)
    return {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": document}


def error_of(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


# --- Plaintext


def test_what_is_encrypted_is_decrypted_with_its_context_only(
    server: KmsServer, client: Any
) -> None:
    key = server.store.create(alias="mine")
    sealed = client.encrypt(KeyId="alias/mine", Plaintext=b"secret", EncryptionContext=CONTEXT)
    blob = sealed["CiphertextBlob"]

    opened = client.decrypt(CiphertextBlob=blob, EncryptionContext=CONTEXT)

    assert opened["Plaintext"] == b"secret"
    assert opened["KeyId"] == sealed["KeyId"] == key.arn
    assert error_of(client.decrypt, CiphertextBlob=blob).startswith("InvalidCiphertextException")
    changed = blob[:-1] + bytes([blob[-1] ^ 1])
    assert error_of(client.decrypt, CiphertextBlob=changed, EncryptionContext=CONTEXT).startswith(
        "InvalidCiphertextException"
    )


def test_the_key_of_a_ciphertext_is_the_one_that_is_named(server: KmsServer, client: Any) -> None:
    key, other = server.store.create(), server.store.create(alias="other")
    blob = client.encrypt(KeyId=key.arn, Plaintext=b"secret")["CiphertextBlob"]

    for name in (key.arn, key.key_id):
        assert client.decrypt(CiphertextBlob=blob, KeyId=name)["Plaintext"] == b"secret"
    for name in (other.arn, "alias/other"):
        text = error_of(client.decrypt, CiphertextBlob=blob, KeyId=name)
        assert text.startswith("IncorrectKeyException")


@pytest.mark.parametrize(("spec", "size"), [("AES_256", 32), ("AES_128", 16)])
def test_data_keys(server: KmsServer, client: Any, spec: str, size: int) -> None:
    key = server.store.create()

    made = client.generate_data_key(KeyId=key.arn, KeySpec=spec)

    assert len(made["Plaintext"]) == size
    opened = client.decrypt(CiphertextBlob=made["CiphertextBlob"])
    assert opened["Plaintext"] == made["Plaintext"]


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_SECG_P256K1"])
def test_pairs_of_data_keys(server: KmsServer, client: Any, spec: str) -> None:
    key = server.store.create()

    made = client.generate_data_key_pair(KeyId=key.arn, KeyPairSpec=spec)

    private = serialization.load_der_private_key(made["PrivateKeyPlaintext"], password=None)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert public == made["PublicKey"]
    opened = client.decrypt(CiphertextBlob=made["PrivateKeyCiphertextBlob"])
    assert opened["Plaintext"] == made["PrivateKeyPlaintext"]


def test_random_bytes(client: Any) -> None:
    first, second = (client.generate_random(NumberOfBytes=32)["Plaintext"] for _ in range(2))

    assert len(first) == 32
    assert first != second


def agreement() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    own = ec.generate_private_key(ec.SECP256R1())
    return own, own.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_secrets_that_are_shared(server: KmsServer, client: Any) -> None:
    key = server.store.create(curve="ECC_NIST_P256")
    own, public = agreement()

    derived = client.derive_shared_secret(
        KeyId=key.arn, KeyAgreementAlgorithm="ECDH", PublicKey=public
    )

    theirs = serialization.load_der_public_key(key.public_key)
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    assert derived["SharedSecret"] == own.exchange(ec.ECDH(), theirs)


def test_keys_are_listed_by_the_page_and_described(server: KmsServer, client: Any) -> None:
    keys = {server.store.create().arn for _ in range(7)}

    pages = list(client.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 3}))

    assert [len(page["Keys"]) for page in pages] == [3, 3, 1]
    assert {key["KeyArn"] for page in pages for key in page["Keys"]} == keys
    for arn in keys:
        assert client.describe_key(KeyId=arn)["KeyMetadata"]["Arn"] == arn


# --- Envelopes


def calls(server: KmsServer, client: Any, **policy: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each attested operation, and the arguments that make it succeed."""
    key = server.store.create(**policy)
    curve = server.store.create(curve="ECC_NIST_P256", **policy)
    blob = client.encrypt(KeyId=key.arn, Plaintext=b"secret")["CiphertextBlob"]
    return {
        "Decrypt": (client.decrypt, {"CiphertextBlob": blob}),
        "GenerateDataKey": (client.generate_data_key, {"KeyId": key.arn, "KeySpec": "AES_256"}),
        "GenerateDataKeyPair": (
            client.generate_data_key_pair,
            {"KeyId": key.arn, "KeyPairSpec": "RSA_2048"},
        ),
        "GenerateRandom": (client.generate_random, {"NumberOfBytes": 32}),
        "DeriveSharedSecret": (
            client.derive_shared_secret,
            {"KeyId": curve.arn, "KeyAgreementAlgorithm": "ECDH", "PublicKey": agreement()[1]},
        ),
    }


@pytest.mark.parametrize("operation", ATTESTED)
def test_an_envelope_in_place_of_the_plaintext(
    operation: str, server: KmsServer, client: Any, enclave_key: rsa.RSAPrivateKey
) -> None:
    call, arguments = calls(server, client)[operation]

    plain = call(**arguments)
    answer = call(**arguments, Recipient=recipient(enclave_key))

    assert ATTESTED[operation] in plain
    assert ATTESTED[operation] not in answer
    assert answer.keys() - plain.keys() == {"CiphertextForRecipient"}
    opened = open_envelope(answer["CiphertextForRecipient"], enclave_key)
    if operation in ("Decrypt", "DeriveSharedSecret"):
        assert opened == plain[ATTESTED[operation]]
    elif operation == "GenerateDataKey":
        assert client.decrypt(CiphertextBlob=answer["CiphertextBlob"])["Plaintext"] == opened
    elif operation == "GenerateDataKeyPair":
        private = serialization.load_der_private_key(opened, password=None)
        assert isinstance(private, rsa.RSAPrivateKey)
        assert subject_public_key(private.public_key()) == answer["PublicKey"]
    assert server.count.attested[operation] == 1


@pytest.mark.parametrize("operation", sorted(ATTESTED))
def test_a_policy_lets_the_measured_in_and_nobody_else(
    operation: str, server: KmsServer, client: Any, enclave_key: rsa.RSAPrivateKey
) -> None:
    call, arguments = calls(server, client, pcrs=MEASURED)[operation]
    server.kms.random_pcrs = MEASURED
    other = {index: bytes(range(48)) for index in range(3)}
    of_debug_mode = dict.fromkeys(range(3), bytes(48))

    assert "CiphertextForRecipient" in call(**arguments, Recipient=recipient(enclave_key))

    for refused in (
        {},
        {"Recipient": recipient(enclave_key, pcrs=other)},
        {"Recipient": recipient(enclave_key, pcrs=of_debug_mode)},
    ):
        text = error_of(call, **arguments, **refused)
        assert text.startswith("AccessDeniedException: User: ")
        assert f"not authorized to perform: kms:{operation} on resource: " in text


def test_documents_are_verified(
    server: KmsServer, client: Any, enclave_key: rsa.RSAPrivateKey
) -> None:
    def refusal(document: bytes) -> str:
        whole = {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": document,
        }
        return error_of(client.generate_random, NumberOfBytes=32, Recipient=whole)

    good = recipient(enclave_key)["AttestationDocument"]
    at = datetime.now(UTC)
    hour_old = recipient(enclave_key, at=at - timedelta(hours=1))["AttestationDocument"]
    day_old = recipient(enclave_key, at=at - timedelta(days=1))["AttestationDocument"]

    assert "bad_signature" in refusal(good[:-1] + bytes([good[-1] ^ 1]))
    assert "expired" in refusal(day_old)
    assert "has no RSA public key" in refusal(attested())
    assert "has no RSA public key" in refusal(attested(public_key=agreement()[1]))
    assert "ValidationException" in refusal(b"no document")
    server.documents.max_age_seconds = 60
    assert "too_old" in refusal(hour_old)
    server.documents.max_age_seconds = None
    server.documents.are_single_use = True
    assert client.generate_random(NumberOfBytes=32, Recipient=recipient(enclave_key))[
        "CiphertextForRecipient"
    ]
    again = recipient(enclave_key)
    client.generate_random(NumberOfBytes=32, Recipient=again)
    assert "has come before" in refusal(again["AttestationDocument"])


# --- Errors, as AWS has them

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such key": ("encrypt", {"KeyId": "nothing", "Plaintext": b"x"}, "NotFoundException"),
    "no such alias": (
        "describe_key",
        {"KeyId": "alias/nothing"},
        "NotFoundException: Alias 'arn:aws:kms:eu-west-1:123456789012:alias/nothing' does not",
    ),
    "a key of another region": (
        "describe_key",
        {"KeyId": "arn:aws:kms:us-east-1:123456789012:key/x"},
        "NotFoundException: Invalid arn",
    ),
    "no ciphertext of ours": ("decrypt", {"CiphertextBlob": b"x"}, "InvalidCiphertextException"),
    "too many random bytes": ("generate_random", {"NumberOfBytes": 1025}, "ValidationException"),
    "no operation of ours": ("list_grants", {"KeyId": "x"}, "UnknownOperationException"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_are_those_of_aws(case: str, client: Any) -> None:
    operation, arguments, text = REFUSED[case]
    assert error_of(getattr(client, operation), **arguments).startswith(text)


def test_keys_are_for_their_use_only(server: KmsServer, client: Any) -> None:
    symmetric = server.store.create()
    curve = server.store.create(curve="ECC_NIST_P256")
    disabled = server.store.create()
    disabled.is_enabled = False
    public = agreement()[1]

    assert error_of(client.encrypt, KeyId=curve.arn, Plaintext=b"x").startswith("InvalidKeyUsage")
    for arn, expected in ((symmetric.arn, "InvalidKeyUsage"), (disabled.arn, "DisabledException")):
        text = error_of(
            client.derive_shared_secret, KeyId=arn, KeyAgreementAlgorithm="ECDH", PublicKey=public
        )
        assert text.startswith(expected)
