"""What can go wrong between a program and the Nitro Secure Module (NSM).

NsmError
├── NsmRequestError   what was asked for cannot be asked: too long, or out of range (a ValueError)
├── NsmMissing        there is no module, or this process may not use it
├── NsmTimedOut       it did not answer in time (a TimeoutError)
├── NsmFailed         its driver or its connection failed
├── NsmRefused        it said no; `code` says why
└── NsmResponseError  it said what is no answer to the request
"""

from enum import StrEnum

from vsockproxy.errors import VsockproxyError

__all__ = (
    "NsmCode",
    "NsmError",
    "NsmFailed",
    "NsmMissing",
    "NsmRefused",
    "NsmRequestError",
    "NsmResponseError",
    "NsmTimedOut",
)

_MAX_CODE_CHARACTERS = 64


class NsmCode(StrEnum):
    """Why the module refuses (aws-nitro-enclaves-nsm-api, `ErrorCode` in src/api/mod.rs)."""

    INVALID_ARGUMENT = "InvalidArgument"
    INVALID_INDEX = "InvalidIndex"
    INVALID_RESPONSE = "InvalidResponse"
    READ_ONLY_INDEX = "ReadOnlyIndex"
    INVALID_OPERATION = "InvalidOperation"
    BUFFER_TOO_SMALL = "BufferTooSmall"
    INPUT_TOO_LARGE = "InputTooLarge"
    INTERNAL_ERROR = "InternalError"


class NsmError(VsockproxyError):
    """Any of them; the text is fit for a user."""


class NsmRequestError(NsmError, ValueError):
    """What was asked for cannot be asked."""


class NsmMissing(NsmError):
    """There is no module, or this process may not use it."""


class NsmTimedOut(NsmError, TimeoutError):
    """The module did not answer in time."""


class NsmFailed(NsmError):
    """The module's driver, or the connection to it, failed."""


class NsmRefused(NsmError):
    """The module said no.

    Args:
        request: the name of the request.
        code: one of `NsmCode`, or what a later module says; the first 64 characters are kept.
    """

    def __init__(self, request: str, code: str) -> None:
        self.request = request
        self.code = code[:_MAX_CODE_CHARACTERS]
        super().__init__(f"the module refused {request}: {self.code!r}")

    def __reduce__(self) -> tuple[type["NsmRefused"], tuple[str, str]]:
        return type(self), (self.request, self.code)


class NsmResponseError(NsmError):
    """What the module said is no answer to the request."""
