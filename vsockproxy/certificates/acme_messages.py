"""What an ACME server says (RFC 8555): JSON and headers to values, none of it taken on trust."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from vsockproxy.addresses import AddressError, normalise_host
from vsockproxy.certificates.errors import CertificateError

__all__ = (
    "MAX_BODY_BYTES",
    "AcmeError",
    "Authorization",
    "Challenge",
    "Directory",
    "Order",
    "Reply",
    "Trouble",
    "host_and_port",
    "parse_message",
    "refusal_of",
)

MAX_BODY_BYTES: Final = 256 * 1024
"""Of an answer: a chain is the longest."""

MAX_RETRY_AFTER_SECONDS: Final = 24 * 3600
"""No server makes us wait for longer than that."""

MAX_SAID_CHARACTERS: Final = 400
"""Of a server's own words, in a text of ours."""

HTTPS_PORT: Final = 443

_PRINTABLE = re.compile(r"[!-~]{1,2000}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)

Trouble = Literal["unreachable", "refused", "rate_limited"]
"""`unreachable`: the server did not answer, so it has not counted anything. `refused`: it did, or
its challenge was not met. `rate_limited`: it said that we ask too often."""


class AcmeError(CertificateError):
    """No certificate was to be had this time.

    Args:
        text: what happened.
        trouble: of what kind that is.
        retry_after_seconds: how long the server wants us to wait, if it says so.
        kind: the last word of the server's own error type, as `rateLimited`; else empty.
    """

    def __init__(
        self,
        text: str,
        trouble: Trouble,
        *,
        retry_after_seconds: float | None = None,
        kind: str = "",
    ) -> None:
        super().__init__(text)
        self.trouble: Trouble = trouble
        self.retry_after_seconds = retry_after_seconds
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer over HTTP.

    Args:
        status: of it.
        headers: by their names in lower case.
        body: whole.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def retry_after_seconds(self) -> float | None:
        """What Retry-After says in seconds (RFC 9110, 10.2.3), bounded; a date is passed over."""
        said = self.headers.get("retry-after", "").strip()
        if _SECONDS.fullmatch(said) is None:
            return None
        return float(min(int(said), MAX_RETRY_AFTER_SECONDS))


_Url = Annotated[str, msgspec.Meta(min_length=9, max_length=2000, pattern=r"^https://[!-~]+$")]
_Token = Annotated[str, msgspec.Meta(min_length=22, max_length=256, pattern=r"^[A-Za-z0-9_-]+$")]
"""Of base64url characters, at least 128 bits (RFC 8555, 8.1); it becomes part of a path."""


class Problem(msgspec.Struct, frozen=True):
    """Why the server did not do it (RFC 8555, 6.7; RFC 7807)."""

    type: str = ""
    detail: str = ""
    subproblems: list["Problem"] = []

    @property
    def kind(self) -> str:
        """The last word of its type."""
        return self.type.rpartition(":")[2]

    def __str__(self) -> str:
        said = [self, *self.subproblems]
        text = "; ".join(f"{each.kind}: {each.detail}" for each in said)
        return "".join(c if c.isprintable() else " " for c in text[:MAX_SAID_CHARACTERS])


class Directory(msgspec.Struct, frozen=True, rename="camel"):
    """Where the server does what (RFC 8555, 7.1.1)."""

    new_nonce: _Url
    new_account: _Url
    new_order: _Url


class Challenge(msgspec.Struct, frozen=True):
    """One way to prove that a name is ours (RFC 8555, 8)."""

    type: str
    url: _Url
    token: str = ""
    error: Problem | None = None


class Http01(msgspec.Struct, frozen=True):
    """The one that we meet (RFC 8555, 8.3)."""

    url: _Url
    token: _Token


class Identifier(msgspec.Struct, frozen=True):
    """A name, or an address (RFC 8738)."""

    type: str
    value: str


class Authorization(msgspec.Struct, frozen=True):
    """What has to be proved of one name (RFC 8555, 7.1.4)."""

    status: str
    identifier: Identifier
    challenges: Annotated[list[Challenge], msgspec.Meta(max_length=64)] = []

    def http_01(self) -> Http01 | None:
        """The challenge that we meet, if it is offered.

        Raises:
            AcmeError: its token is none.
        """
        for each in self.challenges:
            if each.type == "http-01":
                try:
                    return msgspec.convert({"url": each.url, "token": each.token}, Http01)
                except msgspec.ValidationError as error:
                    raise AcmeError(f"a challenge with such a token: {error}", "refused") from None
        return None

    @property
    def problem(self) -> Problem | None:
        """Why a challenge was not met."""
        return next((each.error for each in self.challenges if each.error is not None), None)


class Order(msgspec.Struct, frozen=True):
    """A certificate that was asked for (RFC 8555, 7.1.3)."""

    status: str
    finalize: _Url
    authorizations: Annotated[list[_Url], msgspec.Meta(max_length=100)] = []
    certificate: _Url | None = None
    error: Problem | None = None


_Message = TypeVar("_Message", Directory, Authorization, Order)


def parse_message(reply: Reply, wanted: type[_Message], what: str) -> _Message:
    """The value that an answer holds.

    Args:
        reply: a successful one.
        wanted: its type.
        what: what it is, for the text of an error.

    Raises:
        AcmeError: it is something else.
    """
    try:
        return msgspec.json.decode(reply.body, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AcmeError(f"the server's {what} cannot be used: {error}", "refused") from None


def refusal_of(reply: Reply, what: str) -> AcmeError:
    """The error that an unsuccessful answer is.

    Args:
        reply: the answer.
        what: what was asked for.
    """
    try:
        problem = msgspec.json.decode(reply.body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problem = Problem()
    is_limit = reply.status == 429 or problem.kind == "rateLimited"
    text = f"the server refused {what} with {reply.status}"
    return AcmeError(
        f"{text}: {problem}" if problem.type or problem.detail else text,
        "rate_limited" if is_limit else "refused",
        retry_after_seconds=reply.retry_after_seconds,
        kind=problem.kind,
    )


def host_and_port(url: str) -> tuple[str, int, str]:
    """Host, port and target of a URL with https, wherever it comes from.

    Raises:
        AcmeError: it is none.
    """
    refusal = AcmeError(f"{url[:MAX_SAID_CHARACTERS]!r} is no URL of https", "refused")
    if _PRINTABLE.fullmatch(url) is None:  # Before any other code reads it.
        raise refusal
    try:
        parts = urlsplit(url)
        port = HTTPS_PORT if parts.port is None else parts.port
        host = normalise_host(parts.hostname or "").text
    except (ValueError, AddressError):
        raise refusal from None
    if parts.scheme != "https" or not port or parts.username is not None or not host:
        raise refusal
    query = f"?{parts.query}" if parts.query else ""
    return host, port, f"{parts.path or '/'}{query}"
