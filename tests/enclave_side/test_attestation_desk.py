"""Documents for whoever asks: a rate, a bound on those who wait, and what goes wrong."""

import json
import os
import tempfile
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from enclave_side import attestation_desk
from enclave_side.attestation_desk import (
    BURST,
    CLIENT_BURST,
    MOST_WAITING,
    AttestationDesk,
    NoDocument,
)
from tests.support.nsm_server import document_fields, nsm_socket
from vsockproxy.attestation.tls_binding import bound_user_data
from vsockproxy.dataplane.loop import Task, run, sleep, spawn
from vsockproxy.log import Log
from vsockproxy.nsm_device import Nsm

KEY = b"key"


def test_a_document_binds_what_it_is_asked_for() -> None:
    async def main(desk: AttestationDesk) -> bytes:
        return await desk.document(b"nonce", KEY, "image", None)

    with (
        tempfile.TemporaryDirectory(dir="/tmp") as directory,
        nsm_socket(Path(directory) / "nsm") as path,
    ):
        log = Log("enclave", "json", "info")
        fields = document_fields(run(main(AttestationDesk(Nsm(str(path)), log))))
    assert (fields["nonce"], fields["public_key"]) == (b"nonce", KEY)
    assert fields["user_data"] == bound_user_data(KEY, "image")


def refusals(desk: AttestationDesk, number: int) -> Callable[[], object]:
    """Ask so often at once; what came of each."""

    async def ask() -> str:
        try:
            await desk.document(b"n", KEY, "generated", None)
        except NoDocument as error:
            return f"{error.status} {error.text}"
        return "document"

    async def main() -> list[str]:
        tasks: list[Task[str]] = [spawn(ask(), "ask") for _ in range(number)]
        return [await task for task in tasks]

    return lambda: run(main())


def test_more_than_the_rate_is_refused_and_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    desk = AttestationDesk(Nsm("/nonexistent"), Log("enclave", "json", "info"))
    answers = refusals(desk, int(BURST) + 50)()
    assert isinstance(answers, list)
    assert answers.count("429 more than 100 documents are asked for in a second") >= 40
    assert answers.count("503 the security module gives no document") >= BURST
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines].count("attestation_refused") < 5


def test_one_client_leaves_documents_for_others() -> None:
    desk = AttestationDesk(Nsm("/nonexistent"), Log("enclave", "json", "error"))

    async def status(client: str) -> int:
        with pytest.raises(NoDocument) as caught:
            await desk.document(b"n", KEY, "generated", ip_address(client))
        return caught.value.status

    async def main() -> None:
        statuses = [await status("192.0.2.1") for _ in range(int(BURST) + 100)]
        assert statuses[: int(CLIENT_BURST)] == [503] * int(CLIENT_BURST)
        assert statuses.count(429) > 100
        assert await status("192.0.2.2") == 503  # the module's answer, which is there for it

    run(main())


def test_no_more_wait_than_may_and_none_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attestation_desk, "BURST", 10_000.0)
    monkeypatch.setattr(attestation_desk, "ANSWER_SECONDS", 0.3)
    may_answer = threading.Event()

    def respond(request: bytes) -> bytes:
        assert may_answer.wait(30)
        return request

    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = Path(directory) / "nsm"
        with nsm_socket(path, respond):
            desk = AttestationDesk(Nsm(os.fspath(path)), Log("enclave", "json", "error"))
            answers = refusals(desk, MOST_WAITING + 7)()
            assert isinstance(answers, list)
            may_answer.set()
    assert answers.count(f"503 {MOST_WAITING} calls wait already") == 7
    assert answers.count("503 the security module did not answer in 0.3 s") == MOST_WAITING


def test_tokens_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attestation_desk, "BURST", 1.0)
    desk = AttestationDesk(Nsm("/nonexistent"), Log("enclave", "json", "error"))

    async def main() -> list[int]:
        statuses = []
        for seconds in (0.0, 0.0, 0.1):
            await sleep(seconds)
            with pytest.raises(NoDocument) as caught:
                await desk.document(b"n", KEY, "generated", None)
            statuses.append(caught.value.status)
        return statuses

    assert run(main()) == [503, 429, 503]
