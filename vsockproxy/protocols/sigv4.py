"""Signatures of AWS requests, version 4, in the Authorization header (AWS: "Signature Version 4").

Signs what it is given: every header that is passed becomes part of the signature, so callers leave
out those that change on the way (Connection, Transfer-Encoding, User-Agent, Expect). Paths are
treated as all services but S3 want them: without dot segments, percent-encoded once more than they
are on the wire. Queries have to be percent-encoded already.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from vsockproxy.protocols.errors import SignatureError

__all__ = (
    "ALGORITHM",
    "MAX_AUTHORIZATION_CHARACTERS",
    "Authorization",
    "Credential",
    "Scope",
    "SigningKey",
    "authorization",
    "canonical_request",
    "format_time",
    "parse_authorization",
    "parse_credential",
    "sign",
    "signature",
    "string_to_sign",
)

ALGORITHM: Final = "AWS4-HMAC-SHA256"

MAX_AUTHORIZATION_CHARACTERS: Final = 8192
"""Of a header that is read; those of SDKs have about 300."""

_TERMINATOR: Final = "aws4_request"
_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"

_CREDENTIAL: Final = re.compile(
    # A key's id; the day; the region, which becomes part of a host's name; the service.
    r"([!-+\-.0-~]{1,128})"
    r"/([0-9]{8})/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)/([a-z0-9-]{1,64})/aws4_request"
)
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")
_METHOD: Final = re.compile(r"[A-Z]{1,32}")
_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,256}")
_VALUE: Final = re.compile(r"[\t -~]*")
_PATH: Final = re.compile(r"(?:/[!-~]*)?")
_QUERY: Final = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True)
class Scope:
    """Where and when a signature counts."""

    date: str
    """The day in UTC, YYYYMMDD."""
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/{_TERMINATOR}"


@dataclass(frozen=True, slots=True)
class Credential:
    """Who signed, and for what."""

    access_key_id: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Authorization:
    """What an Authorization header says."""

    credential: Credential
    signed_headers: tuple[str, ...]
    """Their names in lower case, in the order in which they are written."""
    signature: str
    """64 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What requests are signed with."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    """Of temporary credentials; None of those of a user."""


def sign(
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    key: SigningKey,
    *,
    region: str,
    service: str,
    at: datetime,
) -> list[tuple[str, str]]:
    """The headers that a request needs beside its own so that it is signed.

    Args:
        method: as it is sent, in capitals.
        target: path and query as they are sent.
        headers: all that are to be signed, Host among them, and none of those that are added here.
        body: the whole body.
        key: whose signature it becomes.
        region: the region of the endpoint.
        service: the service's name in signatures: `kms`.
        at: the time, with its zone; AWS takes five minutes of difference.

    Returns:
        X-Amz-Date, X-Amz-Security-Token where there is a token, and Authorization.

    Raises:
        SignatureError: the request cannot be signed: no Host, or bytes that HTTP does not have.
    """
    time = format_time(at)
    added = [("X-Amz-Date", time)]
    if key.session_token is not None:
        added.append(("X-Amz-Security-Token", key.session_token))
    scope = Scope(time[:8], region, service)
    signed = [(name.lower(), value) for name, value in (*headers, *added)]
    given = {name.lower() for name, _ in headers}
    if "host" not in given:
        raise SignatureError("a request without a Host header cannot be signed")
    if twice := given & {"x-amz-date", "x-amz-security-token", "authorization"}:
        raise SignatureError(f"the request has been signed already: {', '.join(sorted(twice))}")
    path, _, query = target.partition("?")
    payload_hash = hashlib.sha256(body).hexdigest()
    canonical = canonical_request(method, path, query, signed, payload_hash)
    made = signature(string_to_sign(canonical, time, scope), key.secret_access_key, scope)
    credential = Credential(key.access_key_id, scope)
    names = tuple(sorted({name for name, _ in signed}))
    added.append(("Authorization", authorization(Authorization(credential, names, made))))
    return added


def canonical_request(
    method: str, path: str, query: str, headers: Iterable[tuple[str, str]], payload_hash: str
) -> str:
    """The text whose hash is signed ("Create a canonical request").

    Args:
        method: in capitals.
        path: as it is on the wire; empty means /.
        query: as it is on the wire, without the question mark.
        headers: those that are signed, with names in lower case; several of one name are joined.
        payload_hash: the body's SHA-256 in hexadecimal digits.

    Raises:
        SignatureError: there is something in it that HTTP does not have.
    """
    if not (_METHOD.fullmatch(method) and _PATH.fullmatch(path) and _QUERY.fullmatch(query)):
        raise SignatureError("the request line has characters that cannot be signed")
    values: dict[str, list[str]] = {}
    for name, value in headers:
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise SignatureError("a header has characters that cannot be signed")
        values.setdefault(name, []).append(" ".join(value.split()))
    lines = [f"{name}:{','.join(values[name])}\n" for name in sorted(values)]
    return "\n".join(
        (
            method,
            quote(_without_dot_segments(path), safe="/~"),
            _sorted_query(query),
            "".join(lines),
            ";".join(sorted(values)),
            payload_hash,
        )
    )


def string_to_sign(canonical: str, time: str, scope: Scope) -> str:
    """What is signed of a canonical request ("Create a string to sign")."""
    digest = hashlib.sha256(canonical.encode("ascii")).hexdigest()
    return f"{ALGORITHM}\n{time}\n{scope}\n{digest}"


def signature(text: str, secret_access_key: str, scope: Scope) -> str:
    """The signature of a string to sign, 64 hexadecimal digits."""
    derived = f"AWS4{secret_access_key}".encode()
    for part in (scope.date, scope.region, scope.service, _TERMINATOR):
        derived = hmac.digest(derived, part.encode(), "sha256")
    return hmac.digest(derived, text.encode(), "sha256").hex()


def authorization(content: Authorization) -> str:
    """The value of the Authorization header that says `content`."""
    credential = content.credential
    return (
        f"{ALGORITHM} Credential={credential.access_key_id}/{credential.scope}, "
        f"SignedHeaders={';'.join(content.signed_headers)}, Signature={content.signature}"
    )


def parse_authorization(value: str) -> Authorization:
    """Read an Authorization header; whether its signature is right is not looked at.

    Raises:
        SignatureError: it is none of version 4.
    """
    if len(value) > MAX_AUTHORIZATION_CHARACTERS:
        raise SignatureError(
            f"the Authorization header has over {MAX_AUTHORIZATION_CHARACTERS} characters"
        )
    algorithm, _, rest = value.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise SignatureError(f"the Authorization header is not of the algorithm {ALGORITHM}")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, _, content = part.strip().partition("=")
        if name in fields:
            raise SignatureError("the Authorization header says something twice")
        fields[name] = content
    if set(fields) != {"Credential", "SignedHeaders", "Signature"}:
        raise SignatureError(
            "the Authorization header needs Credential, SignedHeaders and Signature, and no more"
        )
    names = tuple(fields["SignedHeaders"].split(";"))
    if not all(_NAME.fullmatch(name) for name in names):
        raise SignatureError("SignedHeaders is no list of headers in lower case")
    if list(names) != sorted(set(names)):
        raise SignatureError("SignedHeaders is not sorted, or names a header twice")
    if not _SIGNATURE.fullmatch(fields["Signature"]):
        raise SignatureError("Signature is not of 64 hexadecimal digits")
    return Authorization(parse_credential(fields["Credential"]), names, fields["Signature"])


def parse_credential(text: str) -> Credential:
    """Read a credential: of the Authorization header, or X-Amz-Credential of a query, decoded.

    Raises:
        SignatureError: it is none, or its region could not be part of a host's name.
    """
    found = _CREDENTIAL.fullmatch(text)
    if found is None:
        raise SignatureError(
            "Credential is not of the form KEY/YYYYMMDD/REGION/SERVICE/aws4_request"
        )
    key_id, date, region, service = found.groups()
    return Credential(key_id, Scope(date, region, service))


def format_time(at: datetime) -> str:
    """The value of X-Amz-Date.

    Raises:
        ValueError: the time has no zone.
    """
    if at.tzinfo is None:
        raise ValueError("a time without a zone is nobody's")
    return at.astimezone(UTC).strftime(_TIME_FORMAT)


def _sorted_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if query)
    return "&".join(f"{name}={value}" for name, value in sorted((n, v) for n, _, v in pairs))


def _without_dot_segments(path: str) -> str:
    """RFC 3986, section 5.2.4; runs of slashes become one, as AWS's services want it."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")
