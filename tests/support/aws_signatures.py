"""Looks at the signature of a request as AWS does, and refuses with AWS's words."""

import hashlib
import hmac
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.support.aws_http import Request
from vsockproxy.protocols.errors import SignatureError
from vsockproxy.protocols.sigv4 import (
    canonical_request,
    format_time,
    parse_authorization,
    signature,
    string_to_sign,
)

MOST_SKEW = timedelta(minutes=5)

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)
_INVALID_TOKEN = "The security token included in the request is invalid."


class AwsError(Exception):
    """An error of a service of AWS: its status, its type, and what it says."""

    def __init__(self, kind: str, text: str = "", status: int = 400) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text
        self.status = status


@dataclass(frozen=True, slots=True)
class KnownKey:
    """Credentials that are taken."""

    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    """Seconds since the epoch."""


FindKey = Callable[[str], KnownKey | None]
"""The credentials with an access key's id; None if there are none."""


def check_signature(
    request: Request,
    find_key: FindKey,
    *,
    hosts: Collection[str],
    region: str,
    service: str,
    at: datetime,
) -> str:
    """The access key's id of who has signed a request.

    Raises:
        AwsError: nobody who may, or not this, or not now.
    """
    header = request.value("authorization")
    if header is None:
        raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token")
    try:
        authorization = parse_authorization(header)
    except SignatureError as error:
        raise AwsError("IncompleteSignatureException", error.text) from None
    names = authorization.signed_headers
    _check_signed(request, names, hosts)
    scope = authorization.credential.scope
    if scope.region != region:
        text = f"Credential should be scoped to a valid region, not '{scope.region}'. "
        raise AwsError("InvalidSignatureException", text)
    if scope.service != service:
        text = f"Credential should be scoped to correct service: '{service}'. "
        raise AwsError("InvalidSignatureException", text)
    time = _check_time(request, scope.date, at)
    key = find_key(authorization.credential.access_key_id)
    if key is None or request.value("x-amz-security-token") != key.session_token:
        raise AwsError("UnrecognizedClientException", _INVALID_TOKEN)
    fields = [(name, value) for name, value in request.fields if name in names]
    payload_hash = hashlib.sha256(request.body).hexdigest()
    if (request.value("x-amz-content-sha256") or payload_hash) != payload_hash:
        raise AwsError("InvalidSignatureException", _MISMATCH)
    path, _, query = request.target.partition("?")
    try:
        canonical = canonical_request(request.method, path, query, fields, payload_hash)
    except SignatureError:
        raise AwsError("InvalidSignatureException", _MISMATCH) from None
    expected = signature(string_to_sign(canonical, time, scope), key.secret_access_key, scope)
    if not hmac.compare_digest(expected, authorization.signature):
        raise AwsError("InvalidSignatureException", _MISMATCH)
    if key.expires_at is not None and key.expires_at <= at.timestamp():
        text = "The security token included in the request is expired"
        raise AwsError("ExpiredTokenException", text)
    return authorization.credential.access_key_id


def _check_signed(request: Request, names: tuple[str, ...], hosts: Collection[str]) -> None:
    """Host and every header of AWS's own has to be signed, and the host to be ours."""
    if "host" not in names:
        text = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
        raise AwsError("InvalidSignatureException", text)
    came = {name for name, _ in request.fields}
    if missing := set(names) - came:
        text = f"Authorization header names headers that did not come: {sorted(missing)}"
        raise AwsError("InvalidSignatureException", text)
    own = {name for name in came if name.startswith("x-amz-") or name == "content-type"}
    if unsigned := own - set(names) - {"x-amz-content-sha256", "x-amz-user-agent"}:
        text = (
            f"There were headers present in the request which were not signed: {sorted(unsigned)}"
        )
        raise AwsError("InvalidSignatureException", text)
    if request.value("host") not in hosts:
        raise AwsError("InvalidSignatureException", f"this is not {request.value('host')}")


def _check_time(request: Request, day: str, at: datetime) -> str:
    time = request.value("x-amz-date")
    if time is None:
        text = (
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        )
        raise AwsError("IncompleteSignatureException", text)
    try:
        signed_at = datetime.strptime(time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        text = f"Date must be in ISO-8601 'basic format'. Got '{time}'."
        raise AwsError("IncompleteSignatureException", text) from None
    if not time.startswith(day):
        text = f"Date in Credential scope does not match YYYYMMDD from {time}"
        raise AwsError("InvalidSignatureException", text)
    earliest, latest = at - MOST_SKEW, at + MOST_SKEW
    if signed_at < earliest:
        text = f"{time} is now earlier than {_basic(earliest)} ({_basic(at)} - 5 min.)"
        raise AwsError("InvalidSignatureException", f"Signature expired: {text}")
    if signed_at > latest:
        text = f"{time} is still later than {_basic(latest)} ({_basic(at)} + 5 min.)"
        raise AwsError("InvalidSignatureException", f"Signature not yet current: {text}")
    return time


def _basic(at: datetime) -> str:
    return format_time(at.astimezone(UTC))
