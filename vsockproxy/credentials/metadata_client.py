"""Our part of a conversation with the instance metadata service: IMDSv2, never version 1.

What is asked, what an answer means and how long a token is good for; who carries the bytes gives
the time as an argument. (Amazon EC2 user guide, "Use IMDSv2".)
"""

from dataclasses import dataclass
from typing import Final

from vsockproxy.credentials.errors import CredentialsError

__all__ = (
    "REGION_PATH",
    "ROLES_PATH",
    "TOKEN_HEADER",
    "TOKEN_PATH",
    "TOKEN_QUESTION",
    "TOKEN_SECONDS",
    "TOKEN_TTL_HEADER",
    "Question",
    "Tokens",
    "read_body",
    "read_token",
    "role_path",
)

TOKEN_PATH: Final = "/latest/api/token"
ROLES_PATH: Final = "/latest/meta-data/iam/security-credentials/"
REGION_PATH: Final = "/latest/meta-data/placement/region"

TOKEN_TTL_HEADER: Final = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER: Final = "X-aws-ec2-metadata-token"

TOKEN_SECONDS: Final = 21_600
"""The longest that the service gives."""

RENEWED_SECONDS: Final = 60.0
"""A token is not used for the last part of its time: it is the service's clock that counts."""

_MAX_TOKEN_CHARACTERS: Final = 1024

_REFUSED: Final = (
    "the instance metadata service is switched off, or refuses this: "
    "aws ec2 modify-instance-metadata-options --http-endpoint enabled"
)
_NO_ROLE: Final = (
    "this instance has no role: attach an instance profile (aws ec2 associate-iam-instance-profile)"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One request."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]


TOKEN_QUESTION: Final = Question("PUT", TOKEN_PATH, ((TOKEN_TTL_HEADER, str(TOKEN_SECONDS)),))


class Tokens:
    """The token of the session with the service, if there is one."""

    __slots__ = ("_good_until", "_token")

    def __init__(self) -> None:
        self._token = ""
        self._good_until = 0.0

    def ask(self, path: str, now: float) -> Question | None:
        """The question for `path`; None where `TOKEN_QUESTION` has to be asked before."""
        if not self._token or now >= self._good_until:
            return None
        return Question("GET", path, ((TOKEN_HEADER, self._token),))

    def keep(self, token: str, now: float) -> None:
        """Keep a token that was given at `now`."""
        self._token = token
        self._good_until = now + TOKEN_SECONDS - RENEWED_SECONDS

    def drop(self) -> None:
        """The service does not take the token any more (401)."""
        self._token = ""


def role_path(role: str) -> str:
    """Where the role's credentials are."""
    return f"{ROLES_PATH}{role}"


def read_token(status: int, body: bytes) -> str:
    """The token in the answer to `TOKEN_QUESTION`.

    Raises:
        CredentialsError: there is none; version 1 is not tried.
    """
    if status == 200:
        token = body.decode("latin-1").strip()
        if 0 < len(token) <= _MAX_TOKEN_CHARACTERS and token.isascii() and token.isprintable():
            return token
        raise CredentialsError("what the metadata service gave as a token is none")
    raise CredentialsError(
        {
            400: "the metadata service took the request for a token for a wrong one (400)",
            403: f"{_REFUSED} (403)",
            404: "what answers at the metadata service's address has no IMDSv2 (404)",
            405: "what answers at the metadata service's address has no IMDSv2 (405)",
        }.get(status, f"the metadata service answered {status} to a request for a token")
    )


def read_body(path: str, status: int, body: bytes) -> bytes | None:
    """The body of an answer; None where a new token is needed first (401).

    Raises:
        CredentialsError: the service refuses, or has nothing there.
    """
    if status == 200:
        return body
    if status == 401:
        return None
    if status == 403:
        raise CredentialsError(f"{_REFUSED} (403)")
    if status == 404 and path.startswith(ROLES_PATH):
        raise CredentialsError(f"{_NO_ROLE} (404)")
    raise CredentialsError(f"the metadata service answered {status} for {path}")
