"""KMS for unmodified SDKs: calls come in on loopback, and go out attested, signed and encrypted.

Five operations (`kms_calls.PLAINTEXT_FIELDS`) get a fresh attestation document and come back in
plaintext; all others are signed again and passed on. The signature of the program is not checked:
whoever is in the command's network may ask, and KMS decides by the instance's role and by what was
measured.
"""

import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from enclave_side.services.kms_documents import FreshDocuments
from enclave_side.services.kms_upstream import KmsEndpoint
from vsockproxy.attestation.kms_answers import OpenEnvelope, check_account, open_answer
from vsockproxy.attestation.kms_calls import (
    AttestedCall,
    KmsCall,
    may_repeat,
    read_attested_call,
    read_call,
    with_recipient,
)
from vsockproxy.attestation.kms_errors import (
    ERROR_CONTENT_TYPE,
    AnswerRefused,
    CallTimedOut,
    CallUnusable,
    KmsProxyError,
    KmsUnavailable,
)
from vsockproxy.attestation.kms_headers import answer_headers, passed_headers, signed_headers
from vsockproxy.control.logs import EventLog
from vsockproxy.credentials.documents import Credentials
from vsockproxy.protocols.errors import HttpRequestError, HttpResponseError, SignatureError
from vsockproxy.protocols.http_conversation import BodyRequest
from vsockproxy.protocols.http_service import ServiceAnswer, write_post
from vsockproxy.protocols.sigv4 import SigningKey, sign
from vsockproxy.services.connection_pool import ConnectionCut
from vsockproxy.services.credentials_keeper import CredentialsKeeper

__all__ = ("MAX_CALL_BYTES", "KmsProxy", "refusal", "refuse_request")

MAX_CALL_BYTES: Final = 512 * 1024
"""Of a request's body. The longest that KMS takes is a Recipient's document of 256 KiB, which a
program may bring itself, in base64."""

MAX_ANSWER_BYTES: Final = 512 * 1024
"""Of an answer's body. Policies have 32 KiB, lists 1000 entries."""

CALL_SECONDS: Final = 50.0
"""From a call to its answer; SDKs give up after 60 s without a byte, and would not say why."""

CREDENTIALS_SECONDS: Final = 5.0
"""How long a call waits for credentials that are on their way."""

_OK: Final = 200
_LEAST_ERROR: Final = 400


@dataclass(slots=True)
class _Course:
    """What is known of a call so far, for its line in the log."""

    operation: str | None = None
    region: str | None = None
    host: str | None = None
    is_attested: bool = False
    """Whether a document has left for KMS."""


class KmsProxy:
    """Answers calls.

    Args:
        endpoint_of: where KMS of a region is; CallUnusable if there can be none.
        documents: attestation documents with our public key.
        open_envelope: has the private one.
        keeper: has the credentials that requests are signed with.
        log: gets a line for each call.
        accounts: those whose keys may be used; empty for any.
    """

    def __init__(
        self,
        endpoint_of: Callable[[str], KmsEndpoint],
        documents: FreshDocuments,
        open_envelope: OpenEnvelope,
        keeper: CredentialsKeeper,
        log: EventLog,
        accounts: Collection[str] = (),
    ) -> None:
        self._accounts = frozenset(accounts)
        self._endpoint_of = endpoint_of
        self._documents = documents
        self._open_envelope = open_envelope
        self._keeper = keeper
        self._log = log

    async def answer(self, request: BodyRequest) -> ServiceAnswer:
        """What the program gets; an error of AWS's form where something went wrong."""
        began = trio.current_time()
        course = _Course()
        error: KmsProxyError | None = None
        try:
            with trio.fail_after(CALL_SECONDS):
                answer = await self._call(request, course)
        except trio.TooSlowError:
            error = CallTimedOut("timeout", f"there was no answer in {CALL_SECONDS:g} s")
        except KmsProxyError as found:
            error = found
        except Exception as found:  # a mistake of ours, which is to cost no other call anything
            error = KmsProxyError("internal", f"a mistake of vsockproxy's own: {_where(found)}")
        if error is not None:
            answer = refusal(error)
        self._log.write(
            "warning" if error is not None else "info",
            "kms_call",
            {
                "operation": course.operation,
                "region": course.region,
                "host": course.host,
                "attested": course.is_attested,
                "status": answer.status,
                "duration": round(trio.current_time() - began, 6),
                "reason": error.reason if error is not None else None,
                "text": error.text if error is not None else None,
            },
        )
        return answer

    async def _call(self, request: BodyRequest, course: _Course) -> ServiceAnswer:
        call = read_call(request.method, request.target, request.headers)
        course.operation, course.region = call.operation, call.region
        attested = read_attested_call(call, request.body) if call.takes_recipient else None
        endpoint = self._endpoint_of(call.region)
        course.host = endpoint.host
        credentials = await self._credentials()
        body = request.body
        if attested is not None:
            body = with_recipient(body, await self._documents.fresh())
        signed = self._signed(call, request, body, endpoint, credentials)

        def has_left() -> None:
            course.is_attested = attested is not None

        answer = await _ask(endpoint, call, signed, has_left)
        return self._open(call, attested, answer)

    async def _credentials(self) -> Credentials:
        keeper = self._keeper
        with trio.move_on_after(CREDENTIALS_SECONDS):
            while (found := keeper.holding.valid_at(keeper.now)) is None:
                if not keeper.hurry() and keeper.is_refused:
                    break  # the parent has said no a moment ago
                await keeper.changed.wait()
            else:
                return found
        trouble = keeper.holding.trouble or "there are no credentials yet"
        raise KmsUnavailable("no_credentials", f"nothing to sign the request with: {trouble}")

    def _signed(
        self,
        call: KmsCall,
        request: BodyRequest,
        body: bytes,
        endpoint: KmsEndpoint,
        credentials: Credentials,
    ) -> bytes:
        """The request as it is sent."""
        host = endpoint.authority
        passed = passed_headers({**request.headers, "x-amz-target": call.target})
        key = SigningKey(
            credentials.access_key_id, credentials.secret_access_key, credentials.token
        )
        at = datetime.fromtimestamp(self._keeper.now, UTC)
        try:
            added = sign(
                "POST",
                "/",
                signed_headers(host, passed),
                body,
                key,
                region=call.region,
                service="kms",
                at=at,
            )
        except SignatureError as error:
            raise CallUnusable("headers", str(error)) from None
        return write_post("/", host, [*passed, *added], body)

    def _open(
        self, call: KmsCall, attested: AttestedCall | None, answer: ServiceAnswer
    ) -> ServiceAnswer:
        """The answer as the program gets it."""
        given = dict(answer.headers)
        body = answer.body
        if attested is not None and answer.status == _OK:
            if given.get("content-encoding", "identity") != "identity":
                raise AnswerRefused("encoding", "the answer is compressed, and nobody asked for it")
            # On the loop: it holds the interpreter's lock for its half a millisecond anyway.
            body = open_answer(attested, body, self._open_envelope, self._accounts)
        elif attested is not None and answer.status < _LEAST_ERROR:
            text = f"KMS answers with status {answer.status}, which is none of its own"
            raise AnswerRefused("status", text)
        elif answer.status == _OK:
            check_account(call.operation, body, self._accounts)
        is_changed = body is not answer.body
        return ServiceAnswer(
            answer.status,
            body,
            given.get("content-type", ERROR_CONTENT_TYPE),
            answer_headers(answer.headers, is_body_changed=is_changed),
        )


async def _ask(
    endpoint: KmsEndpoint, call: KmsCall, request: bytes, has_left: Callable[[], None]
) -> ServiceAnswer:
    try:
        return await endpoint.pool.ask(
            request,
            may_repeat=may_repeat(call.operation),
            max_body_bytes=MAX_ANSWER_BYTES,
            has_left=has_left,
        )
    except HttpResponseError as error:
        raise AnswerRefused("http", f"{endpoint.host}: {error}") from None
    except ConnectionCut as error:
        raise KmsUnavailable("cut", f"{endpoint.host}: {error}") from None


def _where(mistake: Exception) -> str:
    """Its kind and its place; its text could hold what the call is about."""
    frames = traceback.extract_tb(mistake.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(mistake).__name__}{place}"


def refuse_request(error: HttpRequestError) -> ServiceAnswer:
    """The answer to what is no request of HTTP, or one that is too long."""
    answer = refusal(CallUnusable("http", str(error)))
    return replace(answer, status=error.status)


def refusal(error: KmsProxyError) -> ServiceAnswer:
    """The answer that tells a program of an error of ours."""
    # Some SDKs look for the type in the body, some in this header first.
    headers = (("x-amzn-ErrorType", error.kind),)
    return ServiceAnswer(error.status, error.body, ERROR_CONTENT_TYPE, headers)
