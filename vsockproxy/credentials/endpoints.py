"""What the endpoints for credentials answer: the parent's to an enclave, the enclave's to programs.

Each takes what is known at the moment as a `Holding`; times are seconds since the epoch.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

import msgspec

from vsockproxy.credentials.documents import (
    Credentials,
    container_document,
    metadata_document,
    shared_credentials,
    shared_region,
)
from vsockproxy.credentials.locations import (
    CONTAINER_PATH,
    CREDENTIALS_PATH,
    HEALTH_PATH,
    REGION_NAME_PATH,
)
from vsockproxy.credentials.metadata_client import (
    REGION_PATH,
    ROLES_PATH,
    TOKEN_HEADER,
    TOKEN_PATH,
    TOKEN_SECONDS,
    TOKEN_TTL_HEADER,
)
from vsockproxy.protocols.http_service import ServiceAnswer, ServiceRequest

__all__ = (
    "Holding",
    "MetadataEndpoint",
    "answer_container",
    "answer_enclave",
)

_JSON: Final = "application/json"
_TTL = re.compile(r"[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Holding:
    """What a service has at the moment."""

    credentials: Credentials | None
    region: str | None
    fetched_at: float
    """When the credentials came."""
    trouble: str
    """Why there are none, or no newer ones; empty where all is well."""

    def valid_at(self, now: float) -> Credentials | None:
        """The credentials, unless they have expired."""
        held = self.credentials
        return held if held is not None and held.expires_at > now else None


def answer_enclave(request: ServiceRequest, holding: Holding, now: float) -> ServiceAnswer:
    """What our service on the parent answers on its unix socket."""
    if request.path not in (CREDENTIALS_PATH, REGION_NAME_PATH, HEALTH_PATH):
        return _not_found(f"{CREDENTIALS_PATH}, {REGION_NAME_PATH} and {HEALTH_PATH} are here")
    if request.method != "GET":
        return _wrong_method("GET")
    credentials = holding.valid_at(now)
    if request.path == REGION_NAME_PATH:
        if holding.region is None:
            return _unavailable(holding.trouble or "the region is not known yet")
        return ServiceAnswer(200, shared_region(holding.region), _JSON)
    if credentials is None:
        return _unavailable(holding.trouble or "there are no credentials yet")
    if request.path == HEALTH_PATH:
        return ServiceAnswer(200, b"ok\n")
    return ServiceAnswer(200, shared_credentials(credentials), _JSON)


def answer_container(
    request: ServiceRequest, secret: str, holding: Holding, now: float
) -> ServiceAnswer:
    """What SDKs are answered at AWS_CONTAINER_CREDENTIALS_FULL_URI.

    Args:
        request: the request.
        secret: what its Authorization header has to be, verbatim.
        holding: what there is.
        now: the time.
    """
    given = request.headers.get("authorization", "").encode("latin-1")
    if not hmac.compare_digest(given, secret.encode("ascii")):
        text = "the Authorization header is not AWS_CONTAINER_AUTHORIZATION_TOKEN"
        return _refusal(401, "AccessDenied", text)
    if request.path != CONTAINER_PATH:
        return _not_found(f"{CONTAINER_PATH} is here")
    if request.method != "GET":
        return _wrong_method("GET")
    credentials = holding.valid_at(now)
    if credentials is None:
        return _unavailable(holding.trouble or "there are no credentials yet")
    return ServiceAnswer(200, container_document(credentials), _JSON)


class MetadataEndpoint:
    """The part of IMDSv2 that SDKs need, in place of 169.254.169.254. Version 1 is not answered.

    A token is its own proof: it says how long it is good, and `key` signs that. So there is nothing
    to keep, and none to run out of; another key makes all of them worthless, and SDKs fetch others.

    Args:
        key: random bytes, 32 or more.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def answer(self, request: ServiceRequest, holding: Holding, now: float) -> ServiceAnswer:
        """What a program is answered."""
        if "x-forwarded-for" in request.headers:
            # As the real one does: the request came through a proxy that somebody else uses.
            return _refusal(403, "Forbidden", "a request with X-Forwarded-For")
        if request.path == TOKEN_PATH:
            return self._answer_token(request, now)
        if request.method != "GET":
            return _wrong_method("GET")
        if not self._is_token(request.headers.get(TOKEN_HEADER.lower(), ""), now):
            return _refusal(401, "Unauthorized", f"fetch a token: PUT {TOKEN_PATH}")
        return _answer_metadata(request.path, holding, now)

    def _answer_token(self, request: ServiceRequest, now: float) -> ServiceAnswer:
        if request.method != "PUT":
            return _wrong_method("PUT")
        ttl = request.headers.get(TOKEN_TTL_HEADER.lower(), "")
        if not _TTL.fullmatch(ttl) or not 1 <= int(ttl) <= TOKEN_SECONDS:
            text = f"{TOKEN_TTL_HEADER} has to be within 1-{TOKEN_SECONDS}"
            return _refusal(400, "BadRequest", text)
        token = self._token(int(now) + int(ttl))
        return ServiceAnswer(200, token.encode("ascii"), headers=((TOKEN_TTL_HEADER, ttl),))

    def _token(self, good_until: int) -> str:
        proof = hmac.digest(self._key, str(good_until).encode("ascii"), hashlib.sha256)
        return f"{good_until}.{urlsafe_b64encode(proof).decode('ascii').rstrip('=')}"

    def _is_token(self, text: str, now: float) -> bool:
        found = re.fullmatch(r"([0-9]{1,12})\..{43}", text, re.ASCII)
        if found is None:
            return False
        genuine = hmac.compare_digest(
            self._token(int(found[1])).encode("ascii"), text.encode("latin-1")
        )
        return genuine and now < int(found[1])


def _answer_metadata(path: str, holding: Holding, now: float) -> ServiceAnswer:
    if path == REGION_PATH:
        if holding.region is None:
            return _refusal(404, "NotFound", "the region is not known")
        return ServiceAnswer(200, holding.region.encode("ascii"))
    credentials = holding.valid_at(now)
    if not f"{path}/".startswith(ROLES_PATH):
        return _not_found("the role's credentials and the region are all there is here")
    if credentials is None:
        return _unavailable(holding.trouble or "there are no credentials yet")
    asked = path[len(ROLES_PATH) :]
    if not asked:
        return ServiceAnswer(200, credentials.role.encode("ascii"))
    if asked != credentials.role:
        return _not_found("the instance has another role")
    return ServiceAnswer(200, metadata_document(credentials, holding.fetched_at), _JSON)


def _refusal(status: int, code: str, text: str) -> ServiceAnswer:
    """Errors in the form that SDKs show to their users."""
    body = msgspec.json.encode({"code": code, "message": f"vsockproxy: {text}"})
    return ServiceAnswer(status, body, _JSON)


def _not_found(text: str) -> ServiceAnswer:
    return _refusal(404, "NotFound", text)


def _wrong_method(method: str) -> ServiceAnswer:
    answer = _refusal(405, "MethodNotAllowed", f"use {method}")
    return ServiceAnswer(answer.status, answer.body, answer.content_type, (("Allow", method),))


def _unavailable(text: str) -> ServiceAnswer:
    return _refusal(503, "Unavailable", text)
