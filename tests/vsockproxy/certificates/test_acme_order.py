import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.acme_server import AcmeServer, Driven, converse
from vsockproxy.certificates.acme_messages import (
    MAX_RETRY_AFTER_SECONDS,
    AcmeError,
    Reply,
    host_and_port,
)
from vsockproxy.certificates.acme_order import AcmeClient
from vsockproxy.certificates.errors import CertificateError
from vsockproxy.certificates.signing_request import check_names, make_signing_request

DIRECTORY = "https://ca.test:14000/dir"
KEY = ec.generate_private_key(ec.SECP256R1())
NAMES = ("a.test", "b.test")


def client(contact: str | None = "mailto:ops@example.com") -> AcmeClient:
    return AcmeClient(DIRECTORY, ec.generate_private_key(ec.SECP256R1()), contact)


def order(
    server: AcmeServer,
    names: tuple[str, ...] = NAMES,
    *,
    by: AcmeClient | None = None,
    driven: Driven | None = None,
) -> bytes:
    conversation = (by or client()).order(names, make_signing_request(KEY, names))
    return converse(conversation, server, driven)


def test_a_certificate_for_two_names() -> None:
    server, driven = AcmeServer(), Driven()

    chain = order(server, driven=driven)

    check_names(chain, NAMES)
    assert x509.load_pem_x509_certificate(chain).public_key() == KEY.public_key()
    assert server.names == [{"type": "dns", "value": name} for name in NAMES]
    assert server.contacts == [["mailto:ops@example.com"]]
    assert [event for event, _ in driven.notes] == [
        *("acme_registered", "acme_ordered", "acme_challenge", "acme_challenge")
    ]
    assert driven.notes[1][1]["names"] == "a.test b.test"


def test_the_account_is_kept_and_nonces_are_not() -> None:
    server, by = AcmeServer(), client()
    order(server, by=by)
    second = AcmeServer(accounts=server.accounts)

    order(second, by=by)

    assert len(second.accounts) == 1
    assert "POST /new-Account" not in second.asked
    assert second.asked.count("HEAD /new-Nonce") == 1


def test_an_account_that_the_server_forgot_is_made_again_next_time() -> None:
    by = client()
    order(AcmeServer(), by=by)
    restarted = AcmeServer()
    with pytest.raises(AcmeError, match="accountDoesNotExist"):
        order(restarted, by=by)

    order(restarted, by=by)

    assert len(restarted.accounts) == 1


def test_names_that_are_proved_already_are_not_proved_again() -> None:
    server = AcmeServer(valid=set(NAMES))

    order(server)

    assert not any("challenge" in asked for asked in server.asked)


def test_an_address_is_asked_for_as_such() -> None:
    server = AcmeServer()

    chain = order(server, ("192.0.2.1", "2001:db8::1"))

    assert server.names[0] == {"type": "ip", "value": "192.0.2.1"}
    check_names(chain, ("192.0.2.1", "2001:db8::1"))


def test_no_contact_is_none() -> None:
    server = AcmeServer()
    order(server, by=client(None))
    assert server.contacts == [[]]


def test_refused_nonces_are_replaced() -> None:
    server = AcmeServer(bad_nonces=7)

    order(server)

    assert server.asked.count("POST /new-Account") == 8
    assert server.asked.count("HEAD /new-Nonce") == 1  # a refusal has the next one


def test_nonces_that_are_always_refused_end_it() -> None:
    server = AcmeServer(bad_nonces=100)
    with pytest.raises(AcmeError, match="an account with 400: badNonce: because") as caught:
        order(server)
    assert caught.value.trouble == "refused"
    assert server.asked.count("POST /new-Account") == 8


def test_polling_slows_down() -> None:
    server, driven = AcmeServer(polls=6), Driven()

    order(server, NAMES[:1], driven=driven)

    assert driven.waits[:7] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert driven.waits[7:] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_polling_is_as_the_server_wants_it_within_bounds() -> None:
    for said, seconds in {"3": 3.0, "0": 1.0, "900": 10.0, "soon": 1.0}.items():
        driven = Driven()
        order(AcmeServer(retry_after=said), NAMES[:1], driven=driven)
        assert driven.waits[0] == seconds


def change(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


def rename_token(token: str) -> Callable[[dict[str, Any]], None]:
    def renamed(content: dict[str, Any]) -> None:
        content["challenges"][1]["token"] = token

    return renamed


PROBLEM = json.dumps(
    {
        "type": "urn:ietf:params:acme:error:rejectedIdentifier",
        "detail": "no\r\nsuch",
        "subproblems": [{"type": "urn:ietf:params:acme:error:caa", "detail": "forbidden"}],
    }
).encode()

REFUSED: dict[str, tuple[AcmeServer, str]] = {
    "no directory": (AcmeServer(replies={"dir": Reply(404)}), "refused its directory with 404$"),
    "a directory that is none": (
        AcmeServer(replies={"dir": Reply(200, body=b"<html>")}),
        "the server's directory cannot be used: JSON is malformed",
    ),
    "a directory without orders": (
        AcmeServer(changes={"dir": lambda content: content.pop("newOrder")}),
        "missing required field `newOrder`",
    ),
    "a place without TLS": (
        AcmeServer(changes={"dir": change(newOrder="http://ca.test/new-Order")}),
        "the server's directory cannot be used",
    ),
    "a place that is nowhere": (
        AcmeServer(changes={"dir": change(newNonce="https://:1/")}),
        "'https://:1/' is no URL of https",
    ),
    "no nonce": (AcmeServer(replies={"new-Nonce": Reply(200)}), "the server gives no nonce"),
    "a nonce that is none": (
        AcmeServer(replies={"new-Nonce": Reply(200, {"replay-nonce": "=="})}),
        "the server gives no nonce",
    ),
    "a nonce too long": (
        AcmeServer(replies={"new-Nonce": Reply(200, {"replay-nonce": "A" * 513})}),
        "the server gives no nonce",
    ),
    "nonces refused": (
        AcmeServer(replies={"new-Nonce": Reply(500, body=b"oops")}),
        "refused a nonce with 500$",
    ),
    "a problem and what it is made of": (
        AcmeServer(replies={"new-Order": Reply(403, body=PROBLEM)}),
        "refused an order with 403: rejectedIdentifier: no  such; caa: forbidden$",
    ),
    "no place for the account": (
        AcmeServer(replies={"new-Account": Reply(201)}),
        "does not say where the account is",
    ),
    "a place for the order that is none": (
        AcmeServer(replies={"new-Order": Reply(201, {"location": "ftp://x/"})}),
        "'ftp://x/' is no URL of https",
    ),
    "an order that is none": (
        AcmeServer(replies={"new-Order": Reply(201, {"location": DIRECTORY}, b"[]")}),
        "the server's order cannot be used",
    ),
    "nested without end": (
        AcmeServer(
            replies={"new-Order": Reply(201, {"location": DIRECTORY}, b'{"error":' + b"[" * 9999)}
        ),
        "the server's order cannot be used",
    ),
    "proofs for names that were not asked for": (
        AcmeServer(changes={"new-Order": change(authorizations=[DIRECTORY] * 3)}),
        "wants more proofs than it has names",
    ),
    "no challenge of ours": (
        AcmeServer(changes={"authorization": change(challenges=[])}),
        "'a.test' is 'pending' and no http-01 challenge is offered for it",
    ),
    "a name that was refused before": (
        AcmeServer(changes={"authorization": change(status="deactivated")}),
        "'a.test' is 'deactivated' and no http-01",
    ),
    "a name that was not asked for": (
        AcmeServer(
            changes={"authorization": lambda x: x["identifier"].update(value="\n" * 999)},
            valid={"b.test"},
        ),
        r"wants a proof for '(\\n){100}', which was not asked for$",
    ),
    "a token that is a path": (
        AcmeServer(changes={"authorization": rename_token("../" * 10)}),
        "a challenge with such a token",
    ),
    "a token that can be guessed": (
        AcmeServer(changes={"authorization": rename_token("short")}),
        "a challenge with such a token",
    ),
    "a challenge that is not met": (
        AcmeServer(outcome="invalid"),
        "the proof for 'a.test' is 'invalid': connection: Fetching http://a.test/: refused  "
        r"\(the server has to reach http://a.test/ on port 80\)",
    ),
    "a challenge that is never looked at": (
        AcmeServer(polls=1000),
        r"the proof for 'a.test' is 'processing' \(",
    ),
    "an order that stays as it is": (
        AcmeServer(valid=set(NAMES), polls=1000),
        "the order stays processing",
    ),
    "an order that stays pending": (
        AcmeServer(
            valid=set(NAMES),
            changes={"new-Order": change(status="pending"), "order": change(status="pending")},
        ),
        "the order stays pending",
    ),
    "an order that fails": (
        AcmeServer(
            changes={"finalize": change(status="invalid", error={"type": "x:y", "detail": "z"})}
        ),
        "the order is 'invalid': y: z",
    ),
    "no certificate in the end": (
        AcmeServer(polls=0, changes={"finalize": change(status="valid", certificate=None)}),
        "the order is 'valid'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_goes_wrong_is_said_and_counts_as_a_refusal(case: str) -> None:
    server, text = REFUSED[case]
    with pytest.raises(AcmeError, match=text) as caught:
        order(server)
    assert caught.value.trouble == "refused"
    assert str(caught.value).isprintable()


LIMITED = {
    "the status": (Reply(429), None),
    "the type": (Reply(403, body=b'{"type":"urn:ietf:params:acme:error:rateLimited"}'), None),
    "a time": (Reply(429, {"retry-after": "7200"}), 7200.0),
    "a time without end": (Reply(429, {"retry-after": "999999999"}), MAX_RETRY_AFTER_SECONDS),
    "a date": (Reply(429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), None),
}


@pytest.mark.parametrize("case", LIMITED)
def test_a_limit_is_told_from_a_refusal(case: str) -> None:
    reply, seconds = LIMITED[case]
    with pytest.raises(AcmeError) as caught:
        order(AcmeServer(replies={"new-Order": reply}))
    assert caught.value.trouble == "rate_limited"
    assert caught.value.retry_after_seconds == seconds


URLS = {
    "https://ca.test": ("ca.test", 443, "/"),
    "https://CA.test:14000/a/b?c=d#e": ("ca.test", 14000, "/a/b?c=d"),
    "https://[2001:db8::1]/x": ("2001:db8::1", 443, "/x"),
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_taken_apart(url: str) -> None:
    assert host_and_port(url) == URLS[url]


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://a.test/", "https://", "https://u:p@a.test/", "https://a.test:0/"),
        *("https://a:b/", "https://a.test/ HTTP/1.0", "https://a.test/\n", "https://a.test/é"),
    ],
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(AcmeError, match="no URL of https"):
        host_and_port(url)


def test_a_chain_has_to_be_for_the_names() -> None:
    server = AcmeServer()
    chain = order(server, NAMES[:1])
    with pytest.raises(CertificateError, match=r"not for b\.test"):
        check_names(chain, NAMES)
    with pytest.raises(CertificateError, match="no certificate with names"):
        check_names(b"-----BEGIN", NAMES)
