"""What is asked of KMS, and what is made of its answers."""

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.kms_answers import ANSWERS, KEY, PLAINTEXT
from vsockproxy.client.kms_calls import (
    Answer,
    Call,
    DataKey,
    DataKeyPair,
    Decrypted,
    SharedSecret,
    decrypt,
    derive_shared_secret,
    generate_data_key,
    generate_data_key_pair,
    generate_random,
)
from vsockproxy.client.kms_errors import KmsAnswerError, KmsRequestError

CONTEXT = {"tenant": "ärger", "purpose": "test"}

CALLS: dict[str, tuple[Call[Any], str, dict[str, object]]] = {
    "a ciphertext alone": (decrypt(b"abc"), "Decrypt", {"CiphertextBlob": "YWJj"}),
    "a ciphertext with everything": (
        decrypt(
            b"abc",
            key_id=KEY,
            encryption_context=CONTEXT,
            encryption_algorithm="RSAES_OAEP_SHA_256",
            grant_tokens=["a", "b"],
        ),
        "Decrypt",
        {
            "CiphertextBlob": "YWJj",
            "KeyId": KEY,
            "EncryptionContext": CONTEXT,
            "EncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "GrantTokens": ["a", "b"],
        },
    ),
    "a data key": (
        generate_data_key("alias/a"),
        "GenerateDataKey",
        {"KeyId": "alias/a", "KeySpec": "AES_256"},
    ),
    "a data key of another kind": (
        generate_data_key("alias/a", key_spec="AES_128", encryption_context=CONTEXT),
        "GenerateDataKey",
        {"KeyId": "alias/a", "KeySpec": "AES_128", "EncryptionContext": CONTEXT},
    ),
    "a data key by its length": (
        generate_data_key("alias/a", number_of_bytes=64),
        "GenerateDataKey",
        {"KeyId": "alias/a", "NumberOfBytes": 64},
    ),
    "a pair": (
        generate_data_key_pair("alias/a", "RSA_2048", grant_tokens=("a",)),
        "GenerateDataKeyPair",
        {"KeyId": "alias/a", "KeyPairSpec": "RSA_2048", "GrantTokens": ["a"]},
    ),
    "random bytes": (generate_random(32), "GenerateRandom", {"NumberOfBytes": 32}),
    "no random bytes, which AWS refuses": (
        generate_random(0),
        "GenerateRandom",
        {"NumberOfBytes": 0},
    ),
    "random bytes of a cluster": (
        generate_random(32, custom_key_store_id="cks-1"),
        "GenerateRandom",
        {"NumberOfBytes": 32, "CustomKeyStoreId": "cks-1"},
    ),
    "a secret": (
        derive_shared_secret("alias/a", b"der"),
        "DeriveSharedSecret",
        {"KeyId": "alias/a", "PublicKey": "ZGVy", "KeyAgreementAlgorithm": "ECDH"},
    ),
}


@pytest.mark.parametrize(("call", "operation", "fields"), CALLS.values(), ids=CALLS)
def test_a_call(call: Call[Any], operation: str, fields: dict[str, object]) -> None:
    assert call.operation == operation
    assert json.loads(call.body) == fields


RESULTS: dict[str, tuple[Call[Any], object]] = {
    "Decrypt": (decrypt(b"abc"), Decrypted(PLAINTEXT, KEY, "SYMMETRIC_DEFAULT")),
    "GenerateDataKey": (generate_data_key(KEY), DataKey(PLAINTEXT, b"ciphertext", KEY)),
    "GenerateDataKeyPair": (
        generate_data_key_pair(KEY, "ECC_NIST_P256"),
        DataKeyPair(PLAINTEXT, b"ciphertext", b"public", KEY, "ECC_NIST_P256"),
    ),
    "GenerateRandom": (generate_random(16), PLAINTEXT),
    "DeriveSharedSecret": (
        derive_shared_secret(KEY, b"der"),
        SharedSecret(PLAINTEXT, KEY, "ECDH"),
    ),
}


def read(call: Call[Any], fields: object) -> object:
    return call.read(Answer(call.operation, json.dumps(fields).encode()))


@pytest.mark.parametrize("operation", ANSWERS)
def test_a_result(operation: str) -> None:
    call, result = RESULTS[operation]
    assert call.operation == operation
    assert read(call, {**ANSWERS[operation], "KeyMaterialId": "what else there may be"}) == result


@pytest.mark.parametrize("operation", ANSWERS)
@pytest.mark.parametrize("value", [None, "", 5, [], "n_t base64"])
def test_a_field_that_is_not_as_it_should_be_is_an_error(operation: str, value: object) -> None:
    call, _ = RESULTS[operation]
    for name, proper in ANSWERS[operation].items():
        is_text = name in ("KeyId", "EncryptionAlgorithm", "KeyPairSpec", "KeyAgreementAlgorithm")
        if is_text and value == "n_t base64":
            continue
        with pytest.raises(
            KmsAnswerError, match=f"^{operation} was answered without a proper {name}$"
        ):
            read(call, {**ANSWERS[operation], name: value})
        assert is_text or b64decode(proper)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"Plaintext"', b"[" * 100_000])
def test_what_is_no_object_is_an_error_that_holds_none_of_it(body: bytes) -> None:
    with pytest.raises(KmsAnswerError, match=r"^Decrypt was answered by something that") as caught:
        Answer("Decrypt", body)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("operation", ANSWERS)
def test_what_is_secret_is_not_shown(operation: str) -> None:
    call, result = RESULTS[operation]
    assert operation == "GenerateRandom" or "plaintext" not in repr(result).lower()
    assert "abc" not in repr(call)


def given(make: Callable[..., Call[Any]], *arguments: Any, **options: Any) -> Callable[[], object]:
    """A call with arguments that its types do not allow."""
    return lambda: make(*arguments, **options)


IMPOSSIBLE = {
    "a ciphertext of text": given(decrypt, "abc"),
    "a key id of bytes": given(generate_data_key, b"abc"),
    "a context of bytes": given(decrypt, b"abc", encryption_context={"a": b"b"}),
}


@pytest.mark.parametrize("make", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_argument_of_the_wrong_type_is_an_error(make: Callable[[], object]) -> None:
    with pytest.raises(KmsRequestError, match=r"not bytes|of the wrong type"):
        make()
