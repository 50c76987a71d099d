"""What goes wrong between an SDK and KMS, in the form in which SDKs show it to their users.

An error of AWS's JSON protocols is a status, a `__type` and a message. Ours have types of their
own, so that nobody takes them for something that KMS has said; the message begins with a reason of
one word, which our log has too. SDKs try again what has a status of 5xx, and nothing else of ours.
"""

import json
from typing import ClassVar

from vsockproxy.errors import VsockproxyError

__all__ = (
    "ERROR_CONTENT_TYPE",
    "AnswerRefused",
    "AttestationFailed",
    "CallNotAllowed",
    "CallTimedOut",
    "CallUnusable",
    "KmsProxyError",
    "KmsUnavailable",
)

ERROR_CONTENT_TYPE = "application/x-amz-json-1.1"


class KmsProxyError(VsockproxyError):
    """A call that failed on this side of KMS.

    Args:
        reason: one word.
        text: one line: what is wrong and what to do. It holds nothing secret.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "VsockproxyException"
    """The `__type`, which is what boto3 calls the error's code."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text

    @property
    def body(self) -> bytes:
        """The error in AWS's JSON protocols."""
        message = f"vsockproxy: {self.reason}: {self.text}"
        return json.dumps({"__type": self.kind, "message": message}).encode()


class CallUnusable(KmsProxyError):
    """The program's request is none that this proxy can pass on; it has not left the enclave."""

    status = 400
    kind = "VsockproxyRequestException"


class CallNotAllowed(KmsProxyError):
    """The lists of either side do not allow the endpoint."""

    status = 403
    kind = "VsockproxyNotAllowedException"


class AttestationFailed(KmsProxyError):
    """The Nitro Secure Module gave no attestation document."""

    kind = "VsockproxyAttestationException"


class AnswerRefused(KmsProxyError):
    """What came in answer cannot be believed or opened; nothing of it is passed on."""

    status = 502
    kind = "VsockproxyAnswerException"


class KmsUnavailable(KmsProxyError):
    """KMS cannot be reached at the moment, or there is nothing to sign requests with."""

    status = 503
    kind = "VsockproxyUnavailableException"


class CallTimedOut(KmsProxyError):
    """There was no answer in time."""

    status = 504
    kind = "VsockproxyTimeoutException"
