"""The JSON forms of a role's credentials: what the metadata service says, what SDKs are told.

Everything that is read is checked: it came from another process or another machine, and goes into
headers and environments. Keys that are not known are left aside, since AWS may add some.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

import msgspec

from vsockproxy.credentials.errors import CredentialsError
from vsockproxy.credentials.regions import parse_region

__all__ = (
    "MAX_DOCUMENT_BYTES",
    "Credentials",
    "container_document",
    "metadata_document",
    "parse_metadata_document",
    "parse_role",
    "parse_shared_credentials",
    "parse_shared_region",
    "shared_credentials",
    "shared_region",
)

MAX_DOCUMENT_BYTES: Final = 32 * 1024
"""A session token has about 1 KiB, and AWS sets no limit to it."""

_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"

_KeyId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]{4,128}\Z")]
_PRINTABLE: Final = r"^[!-~]{1,%d}\Z"
_Secret = Annotated[str, msgspec.Meta(pattern=_PRINTABLE % 512)]
_Token = Annotated[str, msgspec.Meta(pattern=_PRINTABLE % 16_384)]
_Role = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_+=,.@-]{1,128}\Z")]
_Time = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z\Z")]


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a role, until they expire."""

    role: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str = field(repr=False)
    expires_at: float
    """Seconds since the epoch."""


class _Keys(msgspec.Struct, frozen=True, rename="pascal"):
    access_key_id: _KeyId
    secret_access_key: _Secret
    token: _Token
    expiration: _Time


class _MetadataStatus(msgspec.Struct, frozen=True, rename="pascal"):
    code: str = "Success"
    message: str = ""


class _Shared(_Keys, frozen=True, rename="pascal"):
    role: _Role


class _SharedRegion(msgspec.Struct, frozen=True, rename="pascal"):
    region: str


_T = TypeVar("_T")


def parse_role(body: bytes) -> str:
    """The role's name, from the list of roles: an instance has one.

    Raises:
        CredentialsError: there is none.
    """
    name = body.split(b"\n", 1)[0].strip()
    try:
        return msgspec.convert(name.decode("ascii"), _Role)
    except (UnicodeDecodeError, msgspec.ValidationError):
        raise CredentialsError("the list of roles begins with no role's name") from None


def parse_metadata_document(role: str, body: bytes) -> Credentials:
    """What the metadata service says for a role.

    Raises:
        CredentialsError: it says that there are none, or it is no such document.
    """
    status = _decode(body, _MetadataStatus, "the role's document")
    if status.code != "Success":
        text = f"{_plain(status.code)}: {_plain(status.message)}"
        raise CredentialsError(f"the metadata service has no credentials for {role}: {text}")
    return _credentials(role, _decode(body, _Keys, "the role's document"))


def shared_credentials(credentials: Credentials) -> bytes:
    """What our service on the parent answers to GET /credentials."""
    return msgspec.json.encode(
        _Shared(
            credentials.access_key_id,
            credentials.secret_access_key,
            credentials.token,
            _time_text(credentials.expires_at),
            credentials.role,
        )
    )


def parse_shared_credentials(body: bytes) -> Credentials:
    """What `shared_credentials` wrote, on the other side.

    Raises:
        CredentialsError: it is no such document.
    """
    shared = _decode(body, _Shared, "the parent's answer")
    return _credentials(shared.role, shared)


def shared_region(region: str) -> bytes:
    """What our service on the parent answers to GET /region."""
    return msgspec.json.encode(_SharedRegion(region))


def parse_shared_region(body: bytes) -> str:
    """What `shared_region` wrote.

    Raises:
        CredentialsError: it is no such document.
    """
    return parse_region(_decode(body, _SharedRegion, "the parent's answer").region)


def container_document(credentials: Credentials) -> bytes:
    """What SDKs expect of a container's endpoint (AWS SDKs guide, container credentials)."""
    return msgspec.json.encode(
        _Keys(
            credentials.access_key_id,
            credentials.secret_access_key,
            credentials.token,
            _time_text(credentials.expires_at),
        )
    )


def metadata_document(credentials: Credentials, fetched_at: float) -> bytes:
    """What SDKs expect of the metadata service for a role; times are seconds since the epoch."""
    return msgspec.json.encode(
        {
            "Code": "Success",
            "LastUpdated": _time_text(fetched_at),
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.token,
            "Expiration": _time_text(credentials.expires_at),
        }
    )


def _credentials(role: str, keys: _Keys) -> Credentials:
    try:
        expiration = datetime.strptime(keys.expiration, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise CredentialsError(f"{keys.expiration} is no time") from None
    return Credentials(
        role,
        keys.access_key_id,
        keys.secret_access_key,
        keys.token,
        expiration.timestamp(),
    )


def _time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME_FORMAT)


def _decode(body: bytes, wanted: type[_T], what: str) -> _T:
    if len(body) > MAX_DOCUMENT_BYTES:
        raise CredentialsError(f"{what} has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec names the place and the kind of a fault, never the value.
        raise CredentialsError(f"{what} cannot be used: {_plain(str(error))}") from None


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:200])
