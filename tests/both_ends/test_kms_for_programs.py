"""The Python API against all of it: proxy, attestation, links, and a KMS that verifies."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from tests.support.certificates import Authority
from tests.support.kms_pair import MEASURED, REGION, KmsPair, kms_pair
from vsockproxy.client import blocking, for_asyncio, for_trio
from vsockproxy.client.kms_errors import KmsRefused

CONTEXT = {"purpose": "test"}
SECRET = b"what nobody else may read"

Calls = Callable[..., Any]
"""Carries out an operation, by name, at a proxy, by URL."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KmsPair]:
    with kms_pair(Authority(tmp_path_factory.mktemp("ca"))) as running:
        yield running


def in_plain_code(url: str, operation: str, *arguments: Any, **options: Any) -> Any:
    return getattr(blocking.Kms(region=REGION, endpoint=url), operation)(*arguments, **options)


def on_asyncio(url: str, operation: str, *arguments: Any, **options: Any) -> Any:
    async def main() -> Any:
        kms = for_asyncio.Kms(region=REGION, endpoint=url)
        return await getattr(kms, operation)(*arguments, **options)

    return asyncio.run(main())


def on_trio(url: str, operation: str, *arguments: Any, **options: Any) -> Any:
    async def main() -> Any:
        kms = for_trio.Kms(region=REGION, endpoint=url)
        return await getattr(kms, operation)(*arguments, **options)

    return trio.run(main)


@pytest.mark.parametrize("call", [in_plain_code, on_asyncio, on_trio], ids=lambda f: f.__name__)
def test_all_five_operations_come_back_in_plaintext(running: KmsPair, call: Calls) -> None:
    url = f"http://127.0.0.1:{running.port}"
    key = running.kms.store.create(pcrs=MEASURED)
    sealed = key.encrypt(SECRET, CONTEXT)
    opened = call(url, "decrypt", sealed, key_id=key.arn, encryption_context=CONTEXT)
    assert (opened.plaintext, opened.key_id) == (SECRET, key.arn)

    made = call(url, "generate_data_key", key.key_id, encryption_context=CONTEXT)
    again = call(url, "decrypt", made.ciphertext, encryption_context=CONTEXT)
    assert len(made.plaintext) == 32
    assert again.plaintext == made.plaintext

    pair = call(url, "generate_data_key_pair", key.arn, "ECC_NIST_P256")
    private = load_der_private_key(pair.private_key, None)
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public == pair.public_key

    assert len(call(url, "generate_random", 24)) == 24

    agreement = running.kms.store.create(pcrs=MEASURED, curve="ECC_NIST_P256")
    own = ec.generate_private_key(ec.SECP256R1())
    shown = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    theirs = load_der_public_key(agreement.public_key)
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    derived = call(url, "derive_shared_secret", agreement.arn, shown)
    assert derived.secret == own.exchange(ec.ECDH(), theirs)


@pytest.mark.parametrize("call", [in_plain_code, on_asyncio, on_trio], ids=lambda f: f.__name__)
def test_what_kms_refuses_has_its_code(running: KmsPair, call: Calls) -> None:
    url = f"http://127.0.0.1:{running.port}"
    key = running.kms.store.create(pcrs={0: "00" * 48})
    with pytest.raises(KmsRefused) as caught:
        call(url, "decrypt", key.encrypt(SECRET, CONTEXT), encryption_context=CONTEXT)
    assert (caught.value.code, caught.value.status) == ("AccessDeniedException", 400)
    assert caught.value.text
    with pytest.raises(KmsRefused) as caught:
        call(url, "decrypt", b"no ciphertext")
    assert caught.value.code == "InvalidCiphertextException"
