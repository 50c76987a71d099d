"""What KMS and STS answer to one call each, so that a real AWS SDK takes it for an answer.

The plaintext of `Decrypt` is the ciphertext, backwards. Signatures are not checked.
"""

import base64
import json
from dataclasses import dataclass
from email.message import Message
from urllib.parse import parse_qs

ACCOUNT = "123456789012"
KEY_ARN = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CALLER_ARN = f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/test"

_IDENTITY = f"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<GetCallerIdentityResult><Arn>{CALLER_ARN}</Arn><UserId>AROATEST:test</UserId>
<Account>{ACCOUNT}</Account></GetCallerIdentityResult>
<ResponseMetadata><RequestId>00000000-0000-0000-0000-000000000000</RequestId></ResponseMetadata>
</GetCallerIdentityResponse>"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A body and its type."""

    content_type: str
    body: bytes


def answer(headers: Message, body: bytes) -> Answer | None:
    """The answer to a POST; None if it is neither call."""
    if headers.get("X-Amz-Target") == "TrentService.Decrypt":
        ciphertext = base64.b64decode(json.loads(body)["CiphertextBlob"])
        content = {
            "KeyId": KEY_ARN,
            "Plaintext": base64.b64encode(ciphertext[::-1]).decode(),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }
        return Answer("application/x-amz-json-1.1", json.dumps(content).encode())
    if parse_qs(body.decode(errors="replace")).get("Action") == ["GetCallerIdentity"]:
        return Answer("text/xml", _IDENTITY.encode())
    return None
