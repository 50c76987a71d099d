"""An ACME server in memory: `AcmeServer.answer` turns an `Ask` into a `Reply`.

It verifies what RFC 8555 says of requests (signature, nonce, url, kid or jwk) and has a switch for
each fault that a test wants. `converse` drives a conversation with it.
"""

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from acme.jws import JWS
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from josepy import b64
from josepy.jwk import JWK

from vsockproxy.certificates.acme_messages import Reply
from vsockproxy.certificates.acme_order import Answer, Ask, Conversation, Note, Wait

__all__ = ("BASE", "AcmeServer", "Driven", "converse")

BASE: Final = "https://ca.test:14000"
ISSUED_AT: Final = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LIFETIME: Final = datetime.timedelta(days=90)


@dataclass
class AcmeServer:
    """The server, and its faults.

    Args:
        replies: replies by the last part of a path, in place of what would be answered; each is
            used once.
        bad_nonces: how many requests are refused for their nonce.
        polls: how often an authorization, and an order, is asked for until it is done.
        outcome: how authorizations end.
        valid: names that are proved already.
        retry_after: what it says beside a state that will change.
        changes: changes a message before it is sent, by the last part of its path.
        issued_at: when its certificates begin to hold.
    """

    replies: dict[str, Reply] = field(default_factory=dict)
    bad_nonces: int = 0
    polls: int = 1
    outcome: str = "valid"
    valid: set[str] = field(default_factory=set)
    retry_after: str | None = None
    changes: dict[str, Callable[[dict[str, Any]], object]] = field(default_factory=dict)
    issued_at: datetime.datetime = ISSUED_AT

    accounts: list[JWK] = field(default_factory=list)
    contacts: list[list[str]] = field(default_factory=list)
    names: list[dict[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers: Mapping[str, str] = field(default_factory=dict)
    """What challenges are answered with, as the driver says."""
    _nonces: set[str] = field(default_factory=set)
    _nonce_number: int = 0
    _left: dict[str, int] = field(default_factory=dict)
    _met: set[int] = field(default_factory=set)
    _signing_request: x509.CertificateSigningRequest | None = None

    def answer(self, ask: Ask) -> Reply:
        """What it says."""
        assert ask.url.startswith(BASE)
        path = ask.url.removeprefix(BASE)
        last = path.split("/")[1]
        self.asked.append(f"{ask.method} {path}")
        if (reply := self.replies.pop(last, None)) is not None:
            return reply
        if last == "dir":
            return self._say(last, {f"new{x}": f"{BASE}/new-{x}" for x in _DOES})
        if last == "new-Nonce":
            assert ask.method == "HEAD"
            return Reply(200, {"replay-nonce": self._new_nonce()})
        assert ask.method == "POST"
        assert ("Content-Type", "application/jose+json") in ask.headers
        refused, payload, key = self._verify(ask)
        if refused is not None:
            return refused
        match path.split("/")[1:]:
            case ["new-Account"]:
                assert payload["termsOfServiceAgreed"] is True
                self.accounts.append(key)
                self.contacts.append(payload["contact"])
                location = f"{BASE}/account/{len(self.accounts) - 1}"
                return self._say(last, {"status": "valid"}, 201, {"location": location})
            case ["new-Order"]:
                self.names = payload["identifiers"]
                return self._say(last, self._order(), 201, {"location": f"{BASE}/order/0"})
            case ["authorization", number]:
                return self._say(last, self._authorization(int(number)))
            case ["challenge", number]:
                assert payload == {}
                token = _token(int(number))
                thumbprint = b64.b64encode(key.public_key().thumbprint()).decode()
                assert self.answers == {token: f"{token}.{thumbprint}"}
                self._met.add(int(number))
                self._left[f"authorization {number}"] = self.polls
                return self._say(last, {})
            case ["order", _]:
                return self._say(last, self._order())
            case ["finalize", _]:
                self._signing_request = x509.load_der_x509_csr(b64.b64decode(payload["csr"]))
                self._left["order"] = self.polls
                return self._say(last, self._order())
            case ["certificate", _]:
                assert ("Accept", "application/pem-certificate-chain") in ask.headers
                return Reply(200, {"replay-nonce": self._new_nonce()}, self.issue())
            case _:
                return Reply(404)

    def issue(self) -> bytes:
        """The certificate that was asked for."""
        request = self._signing_request
        assert request is not None
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "memory")])
        return (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(issuer)
            .public_key(request.public_key())
            .serial_number(1)
            .not_valid_before(self.issued_at)
            .not_valid_after(self.issued_at + LIFETIME)
            .add_extension(names.value, critical=False)
            .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )

    def _verify(self, ask: Ask) -> tuple[Reply | None, Any, JWK]:
        jws = JWS.from_json(json.loads(ask.body))
        header = jws.signature.combined
        kid = header.kid
        if kid is None:
            assert header.jwk is not None
            assert ask.url.endswith("/new-Account")
            key: JWK = header.jwk
        else:
            number = int(kid.rpartition("/")[2])
            if number >= len(self.accounts):
                return _problem("accountDoesNotExist", 400), {}, header.jwk
            key = self.accounts[number]
        assert jws.verify(key)
        assert header.url == ask.url
        nonce = b64.b64encode(header.nonce).decode()
        known = nonce in self._nonces
        self._nonces.discard(nonce)
        if self.bad_nonces or not known:
            self.bad_nonces -= 1
            return _problem("badNonce", 400, {"replay-nonce": self._new_nonce()}), {}, key
        return None, json.loads(jws.payload) if jws.payload else None, key

    def _say(
        self,
        last: str,
        content: dict[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        if last in self.changes:
            self.changes[last](content)
        said = {"replay-nonce": self._new_nonce(), **(headers or {})}
        if self.retry_after is not None:
            said["retry-after"] = self.retry_after
        return Reply(status, said, json.dumps(content).encode())

    def _new_nonce(self) -> str:
        self._nonce_number += 1
        nonce = b64.b64encode(f"nonce {self._nonce_number}".encode()).decode()
        self._nonces.add(nonce)
        return nonce

    def _order(self) -> dict[str, Any]:
        order: dict[str, Any] = {
            "status": "pending",
            "finalize": f"{BASE}/finalize/0",
            "authorizations": [f"{BASE}/authorization/{n}" for n in range(len(self.names))],
            "identifiers": self.names,
        }
        states = [self._state(number) for number in range(len(self.names))]
        if all(state == "valid" for state in states):
            order["status"] = "ready"
        if self._signing_request is not None:
            order["status"] = "processing" if self._waits("order") else "valid"
        if order["status"] == "valid":
            order["certificate"] = f"{BASE}/certificate/0"
        return order

    def _authorization(self, number: int) -> dict[str, Any]:
        state = self._state(number, asks=True)
        challenge: dict[str, Any] = {
            "type": "http-01",
            "url": f"{BASE}/challenge/{number}",
            "token": _token(number),
        }
        if state == "invalid":
            detail = "Fetching http://a.test/: refused\n"
            challenge["error"] = {"type": f"{_ERROR}connection", "detail": detail}
        return {
            "status": state,
            "identifier": self.names[number],
            "challenges": [{"type": "dns-01", "url": f"{BASE}/dns", "token": "x"}, challenge],
        }

    def _state(self, number: int, *, asks: bool = False) -> str:
        if self.names[number]["value"] in self.valid:
            return "valid"
        if number not in self._met:
            return "pending"
        waits = self._waits(f"authorization {number}") if asks else False
        return "processing" if waits else self.outcome

    def _waits(self, what: str) -> bool:
        left = self._left.get(what, 0)
        self._left[what] = left - 1
        return left > 0


_DOES: Final = ("Nonce", "Account", "Order")
_ERROR: Final = "urn:ietf:params:acme:error:"


def _token(number: int) -> str:
    return f"token-{number}".ljust(30, "_")


def _problem(kind: str, status: int, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps({"type": f"{_ERROR}{kind}", "detail": "because", "status": status}).encode()
    return Reply(status, headers or {}, body)


@dataclass
class Driven:
    """What came of a conversation, but for its result."""

    notes: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def converse(
    conversation: Conversation[bytes], server: AcmeServer, driven: Driven | None = None
) -> bytes:
    """Drive a conversation to its end."""
    driven = driven or Driven()
    reply: Reply | None = None
    while True:
        try:
            step = conversation.send(reply)
        except StopIteration as end:
            return bytes(end.value)
        reply = None
        match step:
            case Ask():
                reply = server.answer(step)
            case Answer(by_token=by_token):
                server.answers = by_token
            case Wait(seconds=seconds):
                driven.waits.append(seconds)
            case Note(event=event, fields=fields):
                driven.notes.append((event, dict(fields)))
