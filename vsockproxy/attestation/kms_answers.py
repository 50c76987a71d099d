"""Answers of KMS to attested calls: checked, opened, and put as if the call had not been attested.

Whatever is not exactly as it has to be is an error. Above all no plaintext is passed on that came
unencrypted: it would say that KMS, or who answers in its name, did not look at the document.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection
from typing import Any, Final

from vsockproxy.attestation.kms_calls import PLAINTEXT_FIELDS, AttestedCall
from vsockproxy.attestation.kms_errors import AnswerRefused
from vsockproxy.attestation.kms_json import JsonRefused, read_object
from vsockproxy.errors import VsockproxyError

__all__ = ("OpenEnvelope", "check_account", "open_answer")

OpenEnvelope = Callable[[bytes], bytes]
"""Opens a CiphertextForRecipient; VsockproxyError if that cannot be done."""

CIPHERTEXT: Final = "CiphertextForRecipient"
MAX_CIPHERTEXT_BYTES: Final = 6144
"""Of the API reference."""

_ARN = re.compile(
    r"(?P<owner>arn:[a-z0-9-]{1,32}:kms:(?P<region>[a-z0-9-]{1,64}):(?P<account>[0-9]{12})):"
    r"(?P<resource>(?P<kind>key|alias)/(?P<id>[A-Za-z0-9:/_-]{1,256}))",
    re.ASCII,
)


_NAMES_ITS_KEY: Final = frozenset(
    {
        *("Encrypt", "ReEncrypt", "GenerateDataKeyWithoutPlaintext"),
        *("GenerateDataKeyPairWithoutPlaintext", "GenerateMac", "Sign", "Verify", "VerifyMac"),
    }
)
"""Cryptography that takes no Recipient; its answers have KeyId, the ARN of the key."""


def check_account(operation: str, body: bytes, accounts: Collection[str]) -> None:
    """Hold the key of an answer to a call that is not attested against the accounts.

    Args:
        operation: what was asked; one that uses no key is not looked at.
        body: of an answer with status 200.
        accounts: those whose keys may be used; empty for any.

    Raises:
        AnswerRefused: the key is another account's, or is not said.
    """
    if not accounts or operation not in _NAMES_ITS_KEY:
        return
    try:
        fields = read_object(body)
    except JsonRefused as error:
        raise AnswerRefused("answer_body", f"KMS's answer cannot be used: {error}") from None
    for name in ("KeyId", "SourceKeyId") if operation == "ReEncrypt" else ("KeyId",):
        _check_account(_key(fields.get(name)), accounts)


def open_answer(
    call: AttestedCall,
    body: bytes,
    open_envelope: OpenEnvelope,
    accounts: Collection[str] = (),
) -> bytes:
    """The body that KMS would have sent without a Recipient.

    Args:
        call: what was asked.
        body: of an answer with status 200.
        open_envelope: has our key; may take a millisecond.
        accounts: those whose keys may be used; empty for any.

    Raises:
        AnswerRefused: the answer is none to that call, or cannot be opened.
    """
    try:
        fields = read_object(body)
    except JsonRefused as error:
        raise AnswerRefused("answer_body", f"KMS's answer cannot be used: {error}") from None
    name = PLAINTEXT_FIELDS[call.operation]
    for each in PLAINTEXT_FIELDS.values():
        if fields.get(each) not in (None, ""):
            text = f"{each} came unencrypted in answer to an attested call, and was thrown away"
            raise AnswerRefused("plaintext", text)
    blob = _ciphertext(fields)
    if call.operation != "GenerateRandom" and (_names_a_key(call) or accounts or "KeyId" in fields):
        used = _key(fields.get("KeyId"))
        _check_key(call, used)
        _check_account(used, accounts)
    try:
        plaintext = open_envelope(blob)
    except VsockproxyError as error:  # it says one thing of all that our key has found out
        raise AnswerRefused("envelope", f"{CIPHERTEXT} cannot be opened: {error}") from None
    if not plaintext or call.plaintext_bytes not in (None, len(plaintext)):
        text = f"{CIPHERTEXT} holds a plaintext of another length than was asked for"
        raise AnswerRefused("plaintext_length", text)
    for each in (CIPHERTEXT, *PLAINTEXT_FIELDS.values()):
        fields.pop(each, None)
    try:
        return json.dumps(
            {**fields, name: b64encode(plaintext).decode("ascii")},
            separators=(",", ":"),
            allow_nan=False,
        ).encode("ascii")
    except ValueError:
        raise AnswerRefused("answer_body", "KMS's answer has a number that is none") from None


def _ciphertext(fields: dict[str, Any]) -> bytes:
    text = fields.get(CIPHERTEXT)
    if text is None:
        what = f"the answer has no {CIPHERTEXT}: is it KMS that answers?"
        raise AnswerRefused("no_ciphertext", what)
    try:
        if not isinstance(text, str) or len(text) > 2 * MAX_CIPHERTEXT_BYTES:
            raise ValueError
        blob = b64decode(text, validate=True)
        if not 1 <= len(blob) <= MAX_CIPHERTEXT_BYTES:
            raise ValueError
    except ValueError:
        what = f"{CIPHERTEXT} is no base64 of 1 to {MAX_CIPHERTEXT_BYTES} bytes"
        raise AnswerRefused("no_ciphertext", what) from None
    return blob


def _names_a_key(call: AttestedCall) -> bool:
    """Whether the call says which key it is about, and not only an alias that KMS resolves."""
    return call.key_id is not None and not call.key_id.startswith("alias/")


def _key(text: object) -> re.Match[str]:
    """The ARN of a key."""
    found = _ARN.fullmatch(text) if isinstance(text, str) else None
    if found is None or found["kind"] != "key":
        raise AnswerRefused("key", "KMS does not say which key it has used")
    return found


def _check_account(used: re.Match[str], accounts: Collection[str]) -> None:
    if accounts and used["account"] not in accounts:
        text = f"KMS used a key of account {used['account']}, which kms.accounts does not have"
        raise AnswerRefused("account", text)


def _check_key(call: AttestedCall, used: re.Match[str]) -> None:
    """Hold the key that was used against the one asked for.

    A key's id and ARN name one key. An alias is KMS's to resolve, in the account that the
    credentials belong to, and a ciphertext without a KeyId is of whatever key it is of.
    """
    asked = _ARN.fullmatch(call.key_id) if call.key_id is not None else None
    if asked is not None and asked["kind"] == "key":
        is_right = used[0] == asked[0]
    elif asked is not None:
        is_right = used["owner"] == asked["owner"]
    else:
        is_right = used["region"] == call.region and (
            not _names_a_key(call) or used["id"] == call.key_id
        )
    if not is_right:
        raise AnswerRefused("key", "KMS used another key than the one that was asked for")
