"""Answers of KMS to attested calls: checked, opened, and put as if the call had not been attested.

Whatever is not exactly as it has to be is an error. Above all no plaintext is passed on that came
unencrypted: it would say that KMS, or who answers in its name, did not look at the document.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final

from vsockproxy.attestation.kms_calls import PLAINTEXT_FIELDS, AttestedCall
from vsockproxy.attestation.kms_errors import AnswerRefused
from vsockproxy.attestation.kms_json import JsonRefused, read_object
from vsockproxy.errors import VsockproxyError

__all__ = ("OpenEnvelope", "open_answer")

OpenEnvelope = Callable[[bytes], bytes]
"""Opens a CiphertextForRecipient; VsockproxyError if that cannot be done."""

CIPHERTEXT: Final = "CiphertextForRecipient"
MAX_CIPHERTEXT_BYTES: Final = 6144
"""Of the API reference."""

_ARN = re.compile(
    r"(?P<owner>arn:[a-z0-9-]{1,32}:kms:(?P<region>[a-z0-9-]{1,64}):[0-9]{12}):"
    r"(?P<resource>(?P<kind>key|alias)/(?P<id>[A-Za-z0-9:/_-]{1,256}))",
    re.ASCII,
)


def open_answer(call: AttestedCall, body: bytes, open_envelope: OpenEnvelope) -> bytes:
    """The body that KMS would have sent without a Recipient.

    Args:
        call: what was asked.
        body: of an answer with status 200.
        open_envelope: has our key; may take a millisecond.

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
    _check_key(call, fields)
    try:
        plaintext = open_envelope(blob)
    except VsockproxyError as error:  # it says one thing of all that our key has found out
        raise AnswerRefused("envelope", f"{CIPHERTEXT} cannot be opened: {error}") from None
    if not plaintext or call.plaintext_bytes not in (None, len(plaintext)):
        text = f"{CIPHERTEXT} holds a plaintext of another length than was asked for"
        raise AnswerRefused("plaintext_length", text)
    for each in (CIPHERTEXT, *PLAINTEXT_FIELDS.values()):
        fields.pop(each, None)
    return json.dumps(
        {**fields, name: b64encode(plaintext).decode("ascii")}, separators=(",", ":")
    ).encode("ascii")


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


def _check_key(call: AttestedCall, fields: dict[str, Any]) -> None:
    """Hold the answer's KeyId, the ARN of the key that was used, against the one asked for.

    A key's id and ARN name one key. An alias is KMS's to resolve, within its account and region.
    """
    if call.key_id is None or call.operation == "GenerateRandom":
        return
    text = fields.get("KeyId")
    used = _ARN.fullmatch(text) if isinstance(text, str) else None
    asked = _ARN.fullmatch(call.key_id)
    if call.key_id.startswith("alias/"):
        return
    is_right = used is not None and used["kind"] == "key"
    if used is not None and asked is None:
        is_right = is_right and used["id"] == call.key_id and used["region"] == call.region
    elif used is not None and asked is not None and asked["kind"] == "key":
        is_right = is_right and used[0] == asked[0]
    elif used is not None and asked is not None:
        is_right = is_right and used["owner"] == asked["owner"]
    if not is_right:
        raise AnswerRefused("key", "KMS used another key than the one that was asked for")
