"""An ACME client (RFC 8555) without a network: it says what to ask, and is told the answers.

`AcmeClient.order` is a generator. It yields an `Ask`, to be sent and answered with a `Reply`; an
`Answer`, what the http-01 challenges are to be answered with from now on; a `Wait`; or a `Note` for
the log. It returns the chain in PEM, or raises AcmeError.

The signatures are those of the `acme` library, its messages are not: they come with an HTTP client
of their own, and are not strict with what they read.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, TypeVar

from acme.jws import JWS
from cryptography.hazmat.primitives.asymmetric import ec
from josepy import b64
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from vsockproxy.certificates.acme_messages import (
    AcmeError,
    Authorization,
    Directory,
    Order,
    Reply,
    host_and_port,
    parse_message,
    refusal_of,
)

__all__ = ("AcmeClient", "Answer", "Ask", "Conversation", "Note", "Step", "Wait")

JOSE: Final = ("Content-Type", "application/jose+json")
CHAIN: Final = ("Accept", "application/pem-certificate-chain")

BAD_NONCES: Final = 8
"""How often a request is repeated whose nonce was refused: nonces get old (RFC 8555, 6.5)."""

MOST_POLLS: Final = 40
FIRST_POLL_SECONDS: Final = 1.0
MOST_POLL_SECONDS: Final = 10.0
"""How often the server is asked whether it has done its work, and how long between two times."""

MAX_NONCE_CHARACTERS: Final = 512

MAX_SHOWN: Final = 100
"""Characters of a server's single words, in a text of ours."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask this, and send the Reply.

    Args:
        method: GET, HEAD or POST.
        url: whom; always https.
        headers: beside those that each request of HTTP has.
        body: of a POST.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer http-01 challenges so.

    Args:
        by_token: the body for each token, until the next Answer or the end of the order.
    """

    by_token: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the log."""

    event: str
    fields: Mapping[str, object]


Step = Ask | Answer | Wait | Note

_Result = TypeVar("_Result")

Conversation = Generator[Step, Reply | None, _Result]
"""Each Ask wants a Reply, each other step None."""


class AcmeClient:
    """One account with one server, kept for as long as the process runs.

    Args:
        directory: the URL that the server is known by.
        key: of the account, on P-256.
        contact: what the server is told, as `mailto:ops@example.com`; may be None.
    """

    def __init__(
        self, directory: str, key: ec.EllipticCurvePrivateKey, contact: str | None
    ) -> None:
        self._directory_url = directory
        self._key = JWKEC(key=key)
        self._contact = contact
        self._account: str | None = None
        self._nonce: str | None = None

    def order(self, names: Sequence[str], signing_request: bytes) -> Conversation[bytes]:
        """Order a certificate.

        Args:
            names: DNS names and IP addresses.
            signing_request: DER, for exactly these.

        Raises:
            AcmeError: there is none to be had now.
        """
        try:
            return (yield from self._order(names, signing_request))
        except AcmeError as error:
            if error.kind == "accountDoesNotExist":
                self._account = None  # the next order registers again
            raise
        finally:
            self._nonce = None  # it would be old by the next time

    def _order(self, names: Sequence[str], signing_request: bytes) -> Conversation[bytes]:
        reply = yield from _ask(Ask("GET", self._directory_url), "its directory")
        directory = parse_message(reply, Directory, "directory")
        yield from self._register(directory)
        identifiers = [{"type": _kind_of(name), "value": name} for name in names]
        reply = yield from self._post(
            directory, directory.new_order, {"identifiers": identifiers}, "an order"
        )
        order_url = _location(reply, "order")
        order = parse_message(reply, Order, "order")
        yield Note("acme_ordered", {"names": " ".join(names), "order": order_url})
        if len(order.authorizations) > len(names):
            raise AcmeError("the order wants more proofs than it has names", "refused")
        for url in order.authorizations:
            yield from self._prove(directory, url, names)
        if order.status == "pending":
            order = yield from self._poll_order(directory, order_url, "pending")
        if order.status == "ready":
            reply = yield from self._post(
                directory, order.finalize, {"csr": _base64(signing_request)}, "to sign"
            )
            order = parse_message(reply, Order, "order")
        if order.status == "processing":
            order = yield from self._poll_order(directory, order_url, "processing")
        if order.status != "valid" or order.certificate is None:
            raise AcmeError(_bad_end("the order", order.status, order.error), "refused")
        reply = yield from self._post(
            directory, order.certificate, None, "the certificate", headers=(CHAIN,)
        )
        return reply.body

    def _register(self, directory: Directory) -> Conversation[None]:
        """Have an account (RFC 8555, 7.3)."""
        if self._account is not None:
            return
        contact = [] if self._contact is None else [self._contact]
        reply = yield from self._post(
            directory,
            directory.new_account,
            {"termsOfServiceAgreed": True, "contact": contact},
            "an account",
        )
        self._account = _location(reply, "account")
        yield Note("acme_registered", {"account": self._account})

    def _prove(self, directory: Directory, url: str, names: Sequence[str]) -> Conversation[None]:
        """Prove that one name is ours (RFC 8555, 7.5.1)."""
        reply = yield from self._post(directory, url, None, "an authorization")
        authorization = parse_message(reply, Authorization, "authorization")
        if authorization.status == "valid":
            return  # from an order before this one
        said = authorization.identifier.value
        name = next((each for each in names if _is_same(each, said)), None)
        if name is None:
            text = f"the order wants a proof for {said[:MAX_SHOWN]!r}, which was not asked for"
            raise AcmeError(text, "refused")
        challenge = authorization.http_01()
        if authorization.status != "pending" or challenge is None:
            status = authorization.status[:MAX_SHOWN]
            text = f"{name!r} is {status!r} and no http-01 challenge is offered for it"
            raise AcmeError(text, "refused")
        thumbprint = b64.b64encode(self._key.thumbprint()).decode("ascii")
        yield Answer({challenge.token: f"{challenge.token}.{thumbprint}"})
        yield Note("acme_challenge", {"name": name})
        yield from self._post(directory, challenge.url, {}, "the challenge")
        for number in range(MOST_POLLS):
            if authorization.status not in ("pending", "processing"):
                break
            yield _pause(reply, number)
            reply = yield from self._post(directory, url, None, "an authorization")
            authorization = parse_message(reply, Authorization, "authorization")
        if authorization.status != "valid":
            text = _bad_end(f"the proof for {name!r}", authorization.status, authorization.problem)
            raise AcmeError(
                f"{text} (the server has to reach http://{name}/ on port 80)", "refused"
            )

    def _poll_order(self, directory: Directory, url: str, status: str) -> Conversation[Order]:
        """The order once it has another status."""
        reply = Reply(200)
        for number in range(MOST_POLLS):
            if number or status == "processing":  # what is proved has made it ready by now
                yield _pause(reply, number)
            reply = yield from self._post(directory, url, None, "the order")
            order = parse_message(reply, Order, "order")
            if order.status != status:
                return order
        raise AcmeError(f"the order stays {status}", "refused")

    def _post(
        self,
        directory: Directory,
        url: str,
        payload: Mapping[str, object] | None,
        what: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Conversation[Reply]:
        """Ask with a signature (RFC 8555, 6.2); None is POST-as-GET."""
        content = b"" if payload is None else json.dumps(payload).encode("ascii")
        for _ in range(BAD_NONCES):
            nonce, self._nonce = self._nonce, None
            if nonce is None:
                reply = yield from _ask(Ask("HEAD", directory.new_nonce), "a nonce")
                nonce = _nonce_of(reply)
            if nonce is None:
                raise AcmeError("the server gives no nonce", "refused")
            signed = JWS.sign(
                content, self._key, ES256, b64.b64decode(nonce), url=url, kid=self._account
            )
            body = json.dumps(signed.to_json()).encode("ascii")
            reply = yield from _exchange(Ask("POST", url, (JOSE, *headers), body))
            self._nonce = _nonce_of(reply)
            if 200 <= reply.status < 300:
                return reply
            error = refusal_of(reply, what)
            if error.kind != "badNonce":
                raise error
        raise error


def _exchange(ask: Ask) -> Conversation[Reply]:
    host_and_port(ask.url)  # whoever asks relies on it
    reply = yield ask
    assert reply is not None  # as whoever drives us has promised
    return reply


def _ask(ask: Ask, what: str) -> Conversation[Reply]:
    reply = yield from _exchange(ask)
    if not 200 <= reply.status < 300:
        raise refusal_of(reply, what)
    return reply


def _nonce_of(reply: Reply) -> str | None:
    """The next nonce, if the answer has one that may be signed."""
    nonce = reply.headers.get("replay-nonce", "")
    if not 0 < len(nonce) <= MAX_NONCE_CHARACTERS:
        return None
    try:
        return nonce if b64.b64encode(b64.b64decode(nonce)).decode("ascii") == nonce else None
    except (ValueError, TypeError):
        return None


def _location(reply: Reply, what: str) -> str:
    url = reply.headers.get("location", "")
    if not url:
        raise AcmeError(f"the server does not say where the {what} is", "refused")
    host_and_port(url)
    return url


def _pause(reply: Reply, number: int) -> Wait:
    asked = reply.retry_after_seconds
    seconds = FIRST_POLL_SECONDS * 2.0 ** min(number, 4) if asked is None else asked
    return Wait(min(max(seconds, FIRST_POLL_SECONDS), MOST_POLL_SECONDS))


def _bad_end(what: str, status: str, problem: object) -> str:
    text = f"{what} is {status[:MAX_SHOWN]!r}"
    return text if problem is None else f"{text}: {problem}"


def _is_same(asked: str, said: str) -> bool:
    """Whether a name that the server says is one that was asked for; addresses have many forms."""
    try:
        return ip_address(asked) == ip_address(said)
    except ValueError:
        return asked == said.lower()


def _kind_of(name: str) -> str:
    try:
        ip_address(name)
    except ValueError:
        return "dns"
    return "ip"


def _base64(data: bytes) -> str:
    return b64.b64encode(data).decode("ascii")
