"""The five operations on all three kinds of programs, against a proxy on loopback."""

import asyncio
import json
import pickle
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol

import pytest
import trio
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.support.kms_answers import (
    ANSWERS,
    KEY,
    PLAINTEXT,
    KmsProxy,
    Received,
    as_http,
    by_operation,
    kms_proxy,
)
from vsockproxy.client import blocking, for_asyncio, for_trio
from vsockproxy.client.kms_calls import DataKey, Decrypted, generate_random
from vsockproxy.client.kms_errors import (
    KmsAnswerError,
    KmsError,
    KmsRefused,
    KmsRequestError,
    KmsTimedOut,
    KmsUnreachable,
)
from vsockproxy.client.kms_exchange import Exchange, Proxy, find_proxy, find_region

SECONDS = 30.0


class Runs(Protocol):
    """Carries out one call of `Kms` in a program of one kind."""

    def __call__(self, operation: str, *arguments: Any, **options: Any) -> Any: ...


def in_plain_code(operation: str, *arguments: Any, **options: Any) -> Any:
    return getattr(blocking.kms, operation)(*arguments, **options)


def on_trio(operation: str, *arguments: Any, **options: Any) -> Any:
    async def main() -> Any:
        with trio.fail_after(SECONDS):
            return await getattr(for_trio.kms, operation)(*arguments, **options)

    return trio.run(main)


def on_asyncio(operation: str, *arguments: Any, **options: Any) -> Any:
    return asyncio.run(_on_asyncio(operation, *arguments, **options))


def on_uvloop(operation: str, *arguments: Any, **options: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_on_asyncio(operation, *arguments, **options))


async def _on_asyncio(operation: str, *arguments: Any, **options: Any) -> Any:
    async with asyncio.timeout(SECONDS):
        return await getattr(for_asyncio.kms, operation)(*arguments, **options)


PROGRAMS: list[Runs] = [in_plain_code, on_trio, on_asyncio, on_uvloop]
each_program = pytest.mark.parametrize("run", PROGRAMS, ids=lambda run: run.__name__)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_KMS", raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsProxy]:
    with kms_proxy() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", running.url)
        yield running


@each_program
def test_all_five_operations(run: Runs, proxy: KmsProxy) -> None:
    assert run("decrypt", b"abc", key_id=KEY) == Decrypted(PLAINTEXT, KEY, "SYMMETRIC_DEFAULT")
    assert run("generate_data_key", KEY).plaintext == PLAINTEXT
    assert run("generate_data_key_pair", KEY, "ECC_NIST_P256").private_key == PLAINTEXT
    assert run("generate_random", 32) == PLAINTEXT
    assert run("derive_shared_secret", KEY, b"der").secret == PLAINTEXT
    assert [each.operation for each in proxy.received] == [
        *("Decrypt", "GenerateDataKey", "GenerateDataKeyPair", "GenerateRandom"),
        "DeriveSharedSecret",
    ]


@each_program
def test_a_request_is_as_sdks_send_it(run: Runs, proxy: KmsProxy) -> None:
    run("decrypt", b"abc", encryption_context={"a": "b"})
    (request,) = proxy.received
    assert request.first_line == "POST / HTTP/1.1"
    assert request.headers["host"] == f"127.0.0.1:{proxy.port}"
    assert request.headers["content-type"] == "application/x-amz-json-1.1"
    assert request.headers["x-amz-target"] == "TrentService.Decrypt"
    assert request.headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=vsockproxy/19700101/eu-west-1/kms/aws4_request, "
        f"SignedHeaders=host;x-amz-target, Signature={'0' * 64}"
    )
    assert request.fields == {"CiphertextBlob": "YWJj", "EncryptionContext": {"a": "b"}}


@contextmanager
def answered(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that says that to everything."""
    with kms_proxy(lambda _: answer) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", proxy.url)
        yield


REFUSALS: dict[str, tuple[bytes, str, str, int]] = {
    "as KMS says it": (
        as_http(b'{"__type":"AccessDeniedException","Message":"no"}', "400 Bad Request"),
        *("AccessDeniedException", "no", 400),
    ),
    "with a namespace": (
        as_http(b'{"__type":"com.amazonaws.kms#NotFoundException","message":"n"}', "400 x"),
        *("NotFoundException", "n", 400),
    ),
    "with an address": (
        as_http(b'{"__type":"a#ThrottlingException:http://b/c"}', "400 x"),
        *("ThrottlingException", "", 400),
    ),
    "of the proxy": (
        as_http(b'{"__type":"VsockproxyAttestationException","message":"nsm: no"}', "500 x"),
        *("VsockproxyAttestationException", "nsm: no", 500),
    ),
    "without a word": (as_http(b"", "503 Service Unavailable"), "HTTP 503", "", 503),
    "of something else": (as_http(b"<html>", "502 Bad Gateway"), "HTTP 502", "", 502),
    "with strange fields": (as_http(b'{"__type":1,"message":2}', "400 x"), "HTTP 400", "", 400),
    "a redirection": (as_http(b"", "302 Found"), "HTTP 302", "", 302),
}


@each_program
@pytest.mark.parametrize(("answer", "code", "text", "status"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_has_awss_code_and_message(
    run: Runs, answer: bytes, code: str, text: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answered(answer, monkeypatch), pytest.raises(KmsRefused) as caught:
        run("decrypt", b"abc")
    error = caught.value
    assert (error.operation, error.code, error.text, error.status) == (
        *("Decrypt", code, text),
        status,
    )
    assert str(error) == (f"Decrypt: {code}: {text}" if text else f"Decrypt: {code}")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


BROKEN: dict[str, tuple[bytes, type[KmsError], str]] = {
    "no answer": (b"", KmsUnreachable, "did not answer: it closed the connection"),
    "half of an answer": (
        as_http(b"x" * 100)[:-50],
        KmsUnreachable,
        "did not answer: it closed the connection",
    ),
    "no HTTP": (b"\x16\x03\x01\x00\x00\r\n\r\n", KmsAnswerError, "was answered by no proper HTTP"),
    "too much": (as_http(b"x" * 600_000), KmsAnswerError, "more than 524288 bytes"),
    "no JSON": (as_http(b"x"), KmsAnswerError, "is no JSON object"),
    "no plaintext": (as_http(b'{"KeyId":"a"}'), KmsAnswerError, "without a proper Plaintext"),
}


@each_program
@pytest.mark.parametrize(("answer", "kind", "text"), BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_an_error(
    run: Runs, answer: bytes, kind: type[KmsError], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answered(answer, monkeypatch), pytest.raises(kind, match=text):
        run("decrypt", b"abc")


@each_program
def test_no_proxy_is_an_error(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KmsUnreachable, match=r"^AWS_ENDPOINT_URL_KMS is not set: write kms: {}"):
        run("decrypt", b"abc")
    with kms_proxy() as gone:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", gone.url)
    with pytest.raises(ConnectionError, match=f"at 127.0.0.1:{gone.port} did not answer: "):
        run("decrypt", b"abc")


@each_program
def test_an_error_comes_before_anything_is_sent(run: Runs, proxy: KmsProxy) -> None:
    with pytest.raises(KmsRequestError, match="ciphertext is str, not bytes"):
        run("decrypt", "abc")
    assert proxy.received == []


def test_a_client_of_its_own_has_its_own_region_and_proxy(proxy: KmsProxy) -> None:
    with kms_proxy() as other:
        kms = blocking.Kms(region="us-east-1", endpoint=other.url)
        kms.generate_random(32)
        (request,) = other.received
    assert "/us-east-1/kms/" in request.headers["authorization"]
    assert proxy.received == []


def test_results_are_of_their_type(proxy: KmsProxy) -> None:
    del proxy
    decrypted: Decrypted = blocking.kms.decrypt(b"abc", encryption_context={"a": "b"})
    random: bytes = blocking.kms.generate_random(number_of_bytes=4)
    made: Callable[..., Awaitable[DataKey]] = for_trio.kms.generate_data_key
    assert decrypted.plaintext == random
    assert made.__doc__ == blocking.kms.generate_data_key.__doc__


def test_a_proxy_that_does_not_answer_is_given_up() -> None:
    is_over = threading.Event()

    def wait(request: Received) -> bytes:
        is_over.wait(SECONDS)
        return by_operation(request)

    with kms_proxy(wait) as slow:
        kms = blocking.Kms(endpoint=slow.url, timeout=0.1)
        with pytest.raises(KmsTimedOut, match=r"did not answer in 0.1 s$"):
            kms.generate_random(32)
        is_over.set()


@each_program
def test_nobody_waits_for_ever(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (for_asyncio, for_trio):
        monkeypatch.setattr(module, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(blocking, "kms", blocking.Kms(timeout=0.1))
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # connections stay in its backlog
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(KmsTimedOut, match=r"did not answer in 0.1 s$"):
            run("generate_random", 32)


async def test_a_call_on_trio_can_be_cancelled() -> None:
    is_over = threading.Event()

    def wait(request: Received) -> bytes:
        is_over.wait(SECONDS)
        return by_operation(request)

    with kms_proxy(wait) as slow:
        with trio.move_on_after(0.1) as scope:
            await for_trio.Kms(endpoint=slow.url).generate_random(32)
        assert scope.cancelled_caught
        is_over.set()


def test_a_call_on_asyncio_can_be_cancelled() -> None:
    is_over = threading.Event()

    def wait(request: Received) -> bytes:
        is_over.wait(SECONDS)
        return by_operation(request)

    async def main(url: str) -> None:
        async with asyncio.timeout(0.1):
            await for_asyncio.Kms(endpoint=url).generate_random(32)

    with kms_proxy(wait) as slow:
        with pytest.raises(TimeoutError):
            asyncio.run(main(slow.url))
        is_over.set()


PROXIES = {
    "as it is set": ("http://127.0.0.1:4500", Proxy("127.0.0.1", 4500)),
    "with a slash": ("http://127.0.0.1:4500/", Proxy("127.0.0.1", 4500)),
    "IPv6": ("http://[::1]:4500", Proxy("::1", 4500)),
    "by name": ("http://localhost:1", Proxy("localhost", 1)),
    "the port of HTTP": ("http://127.0.0.9", Proxy("127.0.0.9", 80)),
}


@pytest.mark.parametrize(("url", "proxy"), PROXIES.values(), ids=PROXIES)
def test_where_the_proxy_is(url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9999")
    assert find_proxy(url) == proxy
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
    assert find_proxy() == proxy


@pytest.mark.parametrize(
    "url",
    [
        *("https://127.0.0.1:4500", "http://kms.eu-west-1.amazonaws.com", "http://10.0.0.1:4500"),
        *("http://127.0.0.1:4500/path", "http://127.0.0.1:99999", "127.0.0.1:4500", "http://[::1"),
        *("http://127.0.0.1.example", "http://user@evil:80", "\n"),
    ],
)
def test_what_would_not_stay_in_the_enclave_is_refused(url: str) -> None:
    with pytest.raises(KmsUnreachable, match="is no KMS proxy of this enclave"):
        find_proxy(url)


def test_the_region_is_the_argument_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_region("us-east-1") == "us-east-1"
    assert find_region() == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert find_region() == "eu-north-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(KmsRequestError, match="no region: give one, or set AWS_REGION"):
        find_region()
    for wrong in ("eu west", "eu-west-1\r\nX: y", "EU-WEST-1", "a" * 65):
        with pytest.raises(KmsRequestError, match="is no region, as eu-west-1"):
            find_region(wrong)


def exchange() -> Exchange[bytes]:
    return Exchange(generate_random(32), Proxy("::1", 4500), "eu-west-1")


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert b"\r\nHost: [::1]:4500\r\n" in exchange().request


@given(st.lists(st.integers(min_value=1, max_value=400), max_size=8))
def test_an_answer_may_come_in_any_pieces(cuts: list[int]) -> None:
    answer = as_http(json.dumps(ANSWERS["GenerateRandom"]).encode())
    running = exchange()
    marks = sorted({0, *(cut for cut in cuts if cut < len(answer)), len(answer)})
    results = [running.receive(answer[begin:end]) for begin, end in pairwise(marks)]
    assert [each is not None for each in results] == [False] * (len(results) - 1) + [True]
    assert results[-1] is not None
    assert results[-1].result == PLAINTEXT


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    running = exchange()
    error = None
    try:
        if data:
            running.receive(data)
        running.receive(b"")
    except KmsError as found:
        error = found
    assert error is not None
