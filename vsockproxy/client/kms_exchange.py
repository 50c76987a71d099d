"""One call to the enclave's KMS proxy: where it is, the bytes that are sent, the answer. No socket.

The proxy takes the requests that AWS's SDKs send (`AWS_ENDPOINT_URL_KMS` leads them there too), and
signs them itself. So the signature here is none, and only says the region.
"""

import os
import re
from dataclasses import dataclass
from typing import Final, Generic
from urllib.parse import urlsplit

from vsockproxy.addresses import format_authority
from vsockproxy.client.kms_calls import Answer, Call, Result, read_object
from vsockproxy.client.kms_errors import (
    KmsAnswerError,
    KmsRefused,
    KmsRequestError,
    KmsTimedOut,
    KmsUnreachable,
)
from vsockproxy.credentials.locations import REGION_VARIABLES

__all__ = (
    "CALL_SECONDS",
    "ENDPOINT_VARIABLE",
    "READ_BYTES",
    "Exchange",
    "Proxy",
    "begin",
    "find_proxy",
)

ENDPOINT_VARIABLE: Final = "AWS_ENDPOINT_URL_KMS"
"""Where `vsockproxy enclave` says that its KMS proxy is."""

CALL_SECONDS: Final = 60.0
"""Time for a call; the proxy gives up before, and says why."""

READ_BYTES: Final = 64 * 1024

MAX_ANSWER_BYTES: Final = 512 * 1024
"""As much as the proxy itself takes of KMS; a plaintext has 4 KiB at most."""

_RUN: Final = "write kms: {} in the enclave's file, and run under `vsockproxy enclave -- COMMAND`"
_LOOPBACK: Final = re.compile(r"127(?:\.[0-9]{1,3}){3}|::1|localhost")
_HTTP_PORT: Final = 80
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")
_SUCCESS: Final = 200
_MOST_ERROR_CHARACTERS: Final = 2000

_AUTHORIZATION: Final = (
    "AWS4-HMAC-SHA256 Credential=vsockproxy/19700101/{region}/kms/aws4_request, "
    f"SignedHeaders=host;x-amz-target, Signature={'0' * 64}"
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the KMS proxy listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_authority(self.host, self.port)

    def lost(self, error: OSError | None = None) -> KmsUnreachable:
        """What it means that a connection could not be made, or was cut."""
        cause = (error.strerror or str(error)) if error is not None else "it closed the connection"
        return KmsUnreachable(f"the KMS proxy at {self} did not answer: {cause}")

    def silent(self, seconds: float) -> KmsTimedOut:
        """What it means that no answer came in time."""
        return KmsTimedOut(f"the KMS proxy at {self} did not answer in {seconds:g} s")


def find_proxy(endpoint: str | None = None) -> Proxy:
    """Where the proxy is: `endpoint`, or else what the environment says.

    Raises:
        KmsUnreachable: neither says, or not what can be used: what is sent there is not encrypted.
    """
    url = endpoint or os.environ.get(ENDPOINT_VARIABLE)
    if not url:
        raise KmsUnreachable(f"{ENDPOINT_VARIABLE} is not set: {_RUN}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _HTTP_PORT
    except ValueError:
        host, port = "", 0
    else:
        if parts.scheme != "http" or parts.path not in ("", "/"):
            host = ""
    if not _LOOPBACK.fullmatch(host):
        text = f"{url!r:.200} is no KMS proxy of this enclave, as http://127.0.0.1:4500: {_RUN}"
        raise KmsUnreachable(text)
    return Proxy(host, port)


def find_region(region: str | None = None) -> str:
    """The region: `region`, or else what the environment says.

    Raises:
        KmsRequestError: neither says, or it cannot be one.
    """
    named = (os.environ.get(name) for name in REGION_VARIABLES)
    found = region or next((each for each in named if each), None)
    if found is None:
        text = f"no region: give one, or set {REGION_VARIABLES[0]}"
        raise KmsRequestError(text)
    if not _REGION.fullmatch(found):
        raise KmsRequestError(f"{found!r:.100} is no region, as eu-west-1")
    return found


class Exchange(Generic[Result]):
    """One call on a connection of its own.

    Args:
        call: what to ask.
        proxy: whom.
        region: of the key.
    """

    __slots__ = ("_call", "_reader", "proxy", "request")

    def __init__(self, call: Call[Result], proxy: Proxy, region: str) -> None:
        # Here, since programs that call no KMS have no use for it.
        from vsockproxy.protocols.http_service import AnswerReader

        self._call = call
        self._reader = AnswerReader("POST", MAX_ANSWER_BYTES)
        self.proxy = proxy
        lines = (
            "POST / HTTP/1.1",
            f"Host: {proxy}",
            "User-Agent: vsockproxy",
            "Content-Type: application/x-amz-json-1.1",
            f"X-Amz-Target: TrentService.{call.operation}",
            f"Authorization: {_AUTHORIZATION.format(region=region)}",
            f"Content-Length: {len(call.body)}",
            "Connection: close",
            "",
            "",
        )
        self.request = "\r\n".join(lines).encode("ascii") + call.body

    def receive(self, data: bytes) -> "Received[Result] | None":
        """Take what has come, nothing at the end of file; the result once it is whole.

        Raises:
            KmsRefused: KMS, or the proxy, said no.
            KmsUnreachable: the proxy went before it had answered.
            KmsAnswerError: this is no answer.
        """
        from vsockproxy.protocols.errors import HttpResponseError

        try:
            answer = self._reader.receive(data)
        except HttpResponseError as error:
            if not data:
                raise self.proxy.lost() from None
            text = f"{self._call.operation} was answered by no proper HTTP: {error.text}"
            raise KmsAnswerError(text) from None
        if answer is None:
            return None
        if answer.status != _SUCCESS:
            raise _refusal(self._call.operation, answer.status, answer.body)
        return Received(self._call.read(Answer(self._call.operation, answer.body)))


@dataclass(frozen=True, slots=True)
class Received(Generic[Result]):
    """A result that has come."""

    result: Result


def begin(call: Call[Result], endpoint: str | None, region: str | None) -> Exchange[Result]:
    """An exchange with the proxy, which are found where they are not given.

    Raises:
        KmsUnreachable, KmsRequestError: as `find_proxy` and `find_region` say.
    """
    return Exchange(call, find_proxy(endpoint), find_region(region))


def _refusal(operation: str, status: int, body: bytes) -> KmsRefused:
    """What an error of AWS's JSON protocol says; the status where it says nothing."""
    fields = read_object(body) or {}
    kind, text = fields.get("__type"), fields.get("message", fields.get("Message"))
    # The type may stand behind a namespace, and in front of a URL.
    code = kind.rpartition("#")[2].partition(":")[0] if isinstance(kind, str) else ""
    return KmsRefused(
        operation,
        code[:_MOST_ERROR_CHARACTERS] or f"HTTP {status}",
        text[:_MOST_ERROR_CHARACTERS] if isinstance(text, str) else "",
        status,
    )
