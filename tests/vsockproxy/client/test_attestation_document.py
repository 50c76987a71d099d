"""A document for programs of all three kinds."""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.support.nsm_server import Respond, document_fields, nsm_socket
from vsockproxy.client import blocking, for_asyncio, for_trio
from vsockproxy.client.errors import NsmError, NsmMissing, NsmRequestError
from vsockproxy.nsm_locations import NSM_VARIABLE
from vsockproxy.session.attesting import SESSION_LABEL, session_user_data

SECONDS = 30.0

Asks = Callable[..., bytes]


def on_asyncio(**options: bytes | str | None) -> bytes:
    async def main() -> bytes:
        return await for_asyncio.attestation_document(**options)  # type: ignore[arg-type] # of tests

    return asyncio.run(main())


def on_trio(**options: bytes | str | None) -> bytes:
    async def main() -> bytes:
        with trio.fail_after(SECONDS):
            return await for_trio.attestation_document(**options)  # type: ignore[arg-type] # of tests

    return trio.run(main)


PROGRAMS: list[Asks] = [blocking.attestation_document, on_asyncio, on_trio]
each_program = pytest.mark.parametrize("ask", PROGRAMS, ids=["plain code", "asyncio", "trio"])


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vsockproxy-nsm-") as name:
        yield Path(name)


@each_program
def test_the_module_is_the_one_that_the_environment_names(
    ask: Asks, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nsm_socket(directory / "nsm.sock") as path:
        monkeypatch.setenv(NSM_VARIABLE, str(path))
        fields = document_fields(ask(user_data=b"user", nonce=b"nonce", public_key=b"key"))
        assert [fields[name] for name in ("user_data", "nonce", "public_key")] == [
            *(b"user", b"nonce", b"key")
        ]
        assert document_fields(ask())["nonce"] is None


@each_program
def test_the_module_is_the_one_that_is_named(
    ask: Asks, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NSM_VARIABLE, "/nowhere")
    with nsm_socket(directory / "nsm.sock") as path:
        assert document_fields(ask(device=str(path)))["module_id"]


@each_program
def test_errors_are_raised_by_their_class(
    ask: Asks, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NSM_VARIABLE, raising=False)
    with pytest.raises(NsmMissing, match=r"^/dev/nsm: No such file or directory$"):
        ask()
    with pytest.raises(NsmRequestError, match="nonce of 1025 bytes, over 1024"):
        ask(nonce=bytes(1025), device=str(directory))
    assert issubclass(NsmMissing, NsmError)


@each_program
def test_no_document_looks_like_that_of_a_session(ask: Asks, directory: Path) -> None:
    of_session = session_user_data(16)
    with nsm_socket(directory / "nsm.sock") as path:
        for user_data in (of_session, SESSION_LABEL, SESSION_LABEL + bytes(1000)):
            with pytest.raises(NsmRequestError, match="for sessions with the parent alone"):
                ask(user_data=user_data, nonce=b"nonce", device=str(path))
        for user_data in (SESSION_LABEL[:-1], b" " + of_session, SESSION_LABEL.upper()):
            assert document_fields(ask(user_data=user_data, device=str(path)))["user_data"] == (
                user_data
            )


def _slow(is_over: threading.Event) -> Respond:
    def respond(request: bytes) -> bytes:
        del request
        is_over.wait(SECONDS)
        return b"too late"

    return respond


async def test_a_request_on_trio_can_be_given_up(directory: Path) -> None:
    is_over = threading.Event()
    with nsm_socket(directory / "nsm.sock", _slow(is_over)) as path:
        with trio.move_on_after(0.1) as scope:
            await for_trio.attestation_document(device=str(path))
        assert scope.cancelled_caught
        is_over.set()


def test_a_request_on_asyncio_can_be_given_up(directory: Path) -> None:
    is_over = threading.Event()

    async def main(device: str) -> None:
        try:
            async with asyncio.timeout(0.1):
                await for_asyncio.attestation_document(device=device)
        finally:
            is_over.set()  # asyncio.run waits for its threads

    with (
        nsm_socket(directory / "nsm.sock", _slow(is_over)) as path,
        pytest.raises(TimeoutError),
    ):
        asyncio.run(main(str(path)))
