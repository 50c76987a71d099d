"""The proxy between a call and its answer, without sockets and on a clock that jumps."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from enclave_side.services.kms_documents import FreshDocuments
from enclave_side.services.kms_proxy import CALL_SECONDS, KmsProxy
from enclave_side.services.kms_upstream import KmsEndpoint, KmsEndpoints, tls_context
from tests.support.supervision import RecordingLog
from vsockproxy.attestation.kms_errors import CallNotAllowed, CallUnusable, KmsProxyError
from vsockproxy.attestation.nsm_errors import NsmMissing
from vsockproxy.credentials.documents import Credentials
from vsockproxy.credentials.errors import CredentialsError, CredentialsRefused
from vsockproxy.protocols.http_conversation import BodyRequest
from vsockproxy.protocols.http_service import ServiceAnswer
from vsockproxy.services.connection_pool import ConnectionPool
from vsockproxy.services.credentials_keeper import CredentialsKeeper

HOST = "kms.eu-west-1.amazonaws.com"
EXPIRED_AT = 100.0
CREDENTIALS = Credentials("role", "ASIAEXAMPLE", "secret", "token", 1e12)


def request(operation: str = "Decrypt", body: bytes = b"{}") -> BodyRequest:
    scope = "AKIDEXAMPLE/20260101/eu-west-1/kms/aws4_request"
    headers = {
        "x-amz-target": f"TrentService.{operation}",
        "content-type": "application/x-amz-json-1.1",
        "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, "
        f"Signature={'0' * 64}",
    }
    return BodyRequest("POST", "/", headers, body)


@dataclass
class FakeKms:
    """Answers each request with what comes next; with nothing, it does not answer."""

    answers: list[bytes] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        while data := bytes(await stream.receive_some()):
            self.heard.append(data)
            if not self.answers:
                await trio.sleep_forever()
            await stream.send_all(self.answers.pop(0))


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    given = {"Content-Length": str(len(body)), "x-amzn-RequestId": "the-id", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


async def fetch() -> Credentials:
    return CREDENTIALS


async def refuse_to_give() -> Credentials:
    raise CredentialsRefused("the parent gives this enclave none")


async def fail_to_fetch() -> Credentials:
    raise CredentialsError("the parent gives no credentials")


@asynccontextmanager
async def proxy_to(
    kms: FakeKms,
    log: RecordingLog,
    *,
    attest: Callable[[], bytes] = lambda: b"document",
    fetch: Callable[[], Awaitable[Credentials]] = fetch,
    refusal: KmsProxyError | None = None,
) -> AsyncIterator[KmsProxy]:
    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            if refusal is not None:
                raise refusal
            ours, theirs = memory_stream_pair()
            nursery.start_soon(kms.serve, theirs)
            return ours

        endpoint = KmsEndpoint(HOST, 443, ConnectionPool(connect, at_once=2, idle_seconds=30))
        keeper = CredentialsKeeper(fetch, None, log, wall_clock=lambda: EXPIRED_AT)
        nursery.start_soon(keeper.run)
        nursery.start_soon(endpoint.pool.run)
        yield KmsProxy(
            lambda _: endpoint, FreshDocuments(attest), lambda blob: blob[::-1], keeper, log
        )
        nursery.cancel_scope.cancel()


def kind_of(found: ServiceAnswer) -> tuple[int, str, str]:
    error = json.loads(found.body)
    return found.status, error["__type"], error["message"].split(": ")[1]


SEALED = json.dumps({"CiphertextForRecipient": b64encode(b"321").decode()}).encode()


async def test_kms_gets_its_own_spelling_of_the_target() -> None:
    kms = FakeKms([answer(SEALED)])
    async with proxy_to(kms, RecordingLog()) as proxy:
        found = await proxy.answer(request("generateRANDOM"))
    assert found.status == 200
    assert b"\r\nx-amz-target: TrentService.GenerateRandom\r\n" in kms.heard[0]


async def test_the_answer_to_an_attested_call_keeps_what_is_still_true() -> None:
    kms = FakeKms([answer(SEALED, **{"x-amz-crc32": "1", "Date": "now", "Server": "x"})])
    log = RecordingLog()
    async with proxy_to(kms, log) as proxy:
        found = await proxy.answer(request())
    assert json.loads(found.body) == {"Plaintext": b64encode(b"123").decode()}
    assert dict(found.headers) == {"x-amzn-requestid": "the-id", "date": "now"}
    sent = kms.heard[0]
    assert b'"AttestationDocument":"ZG9jdW1lbnQ="' in sent
    assert f"Host: {HOST}\r\n".encode() in sent
    assert b"Credential=ASIAEXAMPLE/19700101/eu-west-1/kms/aws4_request" in sent
    assert b"AKIDEXAMPLE" not in sent
    (line,) = log.events("kms_call")
    assert (line["operation"], line["attested"], line["status"]) == ("Decrypt", True, 200)


async def test_the_answer_to_any_other_call_is_passed_as_it_is() -> None:
    kms = FakeKms([answer(b'{"Keys": []}', **{"x-amz-crc32": "1"})])
    async with proxy_to(kms, RecordingLog()) as proxy:
        found = await proxy.answer(request("ListKeys", b'{"Limit": 3}'))
    assert found.body == b'{"Keys": []}'
    assert dict(found.headers) == {"x-amzn-requestid": "the-id", "x-amz-crc32": "1"}
    assert kms.heard[0].endswith(b'\r\n\r\n{"Limit": 3}')


async def test_a_kms_that_does_not_answer_is_given_up(autojump_clock: MockClock) -> None:
    del autojump_clock
    log = RecordingLog()
    async with proxy_to(FakeKms(), log) as proxy:
        began = trio.current_time()
        found = await proxy.answer(request("ListKeys"))
        assert trio.current_time() - began == pytest.approx(CALL_SECONDS)
    assert kind_of(found) == (504, "VsockproxyTimeoutException", "timeout")
    assert log.events("kms_call")[0]["reason"] == "timeout"


async def test_a_call_that_is_refused_credentials_does_not_wait(autojump_clock: MockClock) -> None:
    del autojump_clock
    log = RecordingLog()
    async with proxy_to(FakeKms(), log, fetch=refuse_to_give) as proxy:
        began = trio.current_time()
        found = await proxy.answer(request())
        assert trio.current_time() == began
    assert kind_of(found) == (503, "VsockproxyUnavailableException", "no_credentials")
    assert "the parent gives this enclave none" in found.body.decode()
    assert log.events("kms_call")[0]["attested"] is False


def no_module() -> bytes:
    raise NsmMissing("/dev/nsm: No such file or directory")


async def test_a_call_whose_document_did_not_leave_is_not_attested() -> None:
    log = RecordingLog()
    async with proxy_to(FakeKms(), log, attest=no_module) as proxy:
        await proxy.answer(request())
    async with proxy_to(FakeKms(), log, refusal=CallNotAllowed("not_listed", "add it")) as proxy:
        await proxy.answer(request())
    async with proxy_to(FakeKms([b"nonsense\r\n\r\n"]), log) as proxy:
        await proxy.answer(request())
    said = [(line["reason"], line["attested"]) for line in log.events("kms_call")]
    assert said == [("nsm", False), ("not_listed", False), ("http", True)]


async def test_without_credentials_a_call_waits_and_then_says_why(
    autojump_clock: MockClock,
) -> None:
    del autojump_clock
    async with proxy_to(FakeKms(), RecordingLog(), fetch=fail_to_fetch) as proxy:
        found = await proxy.answer(request())
    assert kind_of(found) == (503, "VsockproxyUnavailableException", "no_credentials")
    assert "the parent gives no credentials" in found.body.decode()


async def test_a_call_that_changes_something_is_not_repeated() -> None:
    kms = FakeKms([answer(b"{}"), b""])

    async def answer_once_then_end(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(answer(b"{}"))
        kms.heard.append(bytes(await stream.receive_some()))
        await stream.aclose()

    kms.serve = answer_once_then_end  # type: ignore[method-assign]  # another course
    async with proxy_to(kms, RecordingLog()) as proxy:
        assert (await proxy.answer(request("ListKeys"))).status == 200
        found = await proxy.answer(request("CreateKey"))
    assert kind_of(found) == (503, "VsockproxyUnavailableException", "cut")
    assert len(kms.heard) == 1


async def test_a_module_that_is_missing_is_said() -> None:
    def attest() -> bytes:
        raise FileNotFoundError("/dev/nsm: No such file or directory")

    async with proxy_to(FakeKms(), RecordingLog(), attest=attest) as proxy:
        found = await proxy.answer(request())
    assert kind_of(found) == (500, "VsockproxyAttestationException", "nsm")


async def test_a_mistake_of_ours_ends_one_call_and_says_nothing_of_it() -> None:
    def attest() -> bytes:
        raise ZeroDivisionError("with a secret in its text")

    kms = FakeKms([answer(b"{}")])
    async with proxy_to(kms, RecordingLog(), attest=attest) as proxy:
        found = await proxy.answer(request())
        assert kind_of(found) == (500, "VsockproxyException", "internal")
        assert "ZeroDivisionError at test_kms_proxy.py:" in found.body.decode()
        assert "secret" not in found.body.decode()
        assert (await proxy.answer(request("ListKeys"))).status == 200


async def test_a_header_that_cannot_be_signed_is_the_program_s_fault() -> None:
    wrong = request("ListKeys")
    wrong = BodyRequest("POST", "/", {**wrong.headers, "x-amz-meta": "\xe4"}, b"{}")
    async with proxy_to(FakeKms(), RecordingLog()) as proxy:
        found = await proxy.answer(wrong)
    assert kind_of(found) == (400, "VsockproxyRequestException", "headers")


ENDPOINTS = {
    "eu-west-1": ("kms.eu-west-1.amazonaws.com", "kms-fips.eu-west-1.amazonaws.com"),
    "us-gov-west-1": ("kms.us-gov-west-1.amazonaws.com", "kms-fips.us-gov-west-1.amazonaws.com"),
    "cn-north-1": ("kms.cn-north-1.amazonaws.com.cn", "kms-fips.cn-north-1.amazonaws.com.cn"),
    "us-iso-east-1": ("kms.us-iso-east-1.c2s.ic.gov", "kms-fips.us-iso-east-1.c2s.ic.gov"),
    "eusc-de-east-1": ("kms.eusc-de-east-1.amazonaws.eu", "kms-fips.eusc-de-east-1.amazonaws.eu"),
    "us-east-1": ("kms.example:8443", "kms.example:8443"),
    "us-east-2": ("[2001:db8::1]", "[2001:db8::1]"),
}


@pytest.mark.parametrize(("region", "wanted"), ENDPOINTS.items(), ids=ENDPOINTS)
async def test_each_region_has_its_endpoint(region: str, wanted: tuple[str, str]) -> None:
    overrides = {"us-east-1": "https://kms.example:8443", "us-east-2": "https://[2001:db8::1]"}
    async with trio.open_nursery() as nursery:
        for is_fips, authority in zip((False, True), wanted, strict=True):
            endpoints = KmsEndpoints(
                overrides, "/none", tls_context(None), nursery, is_fips=is_fips
            )
            assert endpoints.of(region).authority == authority
            assert endpoints.of(region) is endpoints.of(region)
        nursery.cancel_scope.cancel()


async def test_what_is_no_region_has_none_and_their_number_is_limited() -> None:
    async with trio.open_nursery() as nursery:
        endpoints = KmsEndpoints({}, "/none", tls_context(None), nursery, is_fips=False)
        with pytest.raises(CallUnusable):
            endpoints.of("nowhere")
        for number in range(64):
            endpoints.of(f"aa-{chr(97 + number % 26) * 2}-{number}")
        with pytest.raises(CallUnusable) as caught:
            endpoints.of("eu-west-1")
        assert caught.value.reason == "region"
        nursery.cancel_scope.cancel()
