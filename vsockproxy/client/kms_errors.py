"""What a call to KMS can end with, other than its result.

KmsError
├── KmsRefused       KMS, or the proxy in front of it, said no; `code` is AWS's name for why
├── KmsUnreachable   there is no proxy, or it went before it had answered (a ConnectionError)
├── KmsTimedOut      there was no answer in time (a TimeoutError); of calls without a loop only
├── KmsAnswerError   the answer is none that KMS gives
└── KmsRequestError  what was asked for cannot be asked (a ValueError)

None of them, and no text of them, has a plaintext or a key in it.
"""

from typing import Any

from vsockproxy.errors import VsockproxyError

__all__ = (
    "KmsAnswerError",
    "KmsError",
    "KmsRefused",
    "KmsRequestError",
    "KmsTimedOut",
    "KmsUnreachable",
)


class KmsError(VsockproxyError):
    """Any of them; the text is fit for a user."""


class KmsRefused(KmsError):
    """KMS, or the proxy in front of it, said no.

    Args:
        operation: as `Decrypt`.
        code: AWS's name for why, as `AccessDeniedException`. Those of the proxy itself begin with
            `Vsockproxy`.
        text: AWS's message, or the proxy's; may be empty.
        status: of HTTP. From 500 on the same call may work later, and was tried again already.
    """

    def __init__(self, operation: str, code: str, text: str, status: int) -> None:
        self.operation = operation
        self.code = code
        self.text = text
        self.status = status
        super().__init__(f"{operation}: {code}: {text}" if text else f"{operation}: {code}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.operation, self.code, self.text, self.status)


class KmsUnreachable(KmsError, ConnectionError):
    """There is no proxy, or it went before it had answered; the text says what to do."""


class KmsTimedOut(KmsError, TimeoutError):
    """There was no answer in time."""


class KmsAnswerError(KmsError):
    """The answer is none that KMS gives."""


class KmsRequestError(KmsError, ValueError):
    """What was asked for cannot be asked."""
