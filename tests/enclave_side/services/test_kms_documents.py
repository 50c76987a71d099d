"""Documents for calls: each is made after its call, and no call waits for more than two."""

import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from enclave_side.services import kms_documents
from enclave_side.services.kms_documents import FreshDocuments
from vsockproxy.attestation.kms_errors import AttestationFailed
from vsockproxy.errors import VsockproxyError


class Module:
    """A module that makes a document when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Semaphore(0)
        self.fails = False

    def attest(self) -> bytes:
        self.asked += 1
        number = self.asked
        assert self.may_answer.acquire(timeout=30)
        if self.fails:
            raise VsockproxyError("InternalError")
        return b"document %d" % number


@pytest.fixture
def module() -> Iterator[Module]:
    found = Module()
    yield found
    for _ in range(10):
        found.may_answer.release()


async def until_asked(module: Module, times: int) -> None:
    with trio.fail_after(20):
        while module.asked < times:  # noqa: ASYNC110  # another thread counts, without trio
            await trio.sleep(0.001)


async def test_calls_that_come_while_one_is_made_share_the_next(module: Module) -> None:
    documents = FreshDocuments(module.attest)
    found: dict[str, bytes] = {}

    async def call(name: str) -> None:
        found[name] = await documents.fresh()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "first")
        await until_asked(module, 1)
        nursery.start_soon(call, "second")
        nursery.start_soon(call, "third")
        await wait_all_tasks_blocked(0.01)
        module.may_answer.release()
        await until_asked(module, 2)
        nursery.start_soon(call, "fourth")
        await wait_all_tasks_blocked(0.01)
        module.may_answer.release()
        module.may_answer.release()
    assert found == {
        "first": b"document 1",
        "second": b"document 2",
        "third": b"document 2",
        "fourth": b"document 3",
    }
    assert documents.made == 3


async def test_calls_one_after_the_other_have_documents_of_their_own(module: Module) -> None:
    documents = FreshDocuments(module.attest)
    for number in (1, 2, 3):
        module.may_answer.release()
        assert await documents.fresh() == b"document %d" % number


async def test_what_the_module_refuses_every_waiting_call_hears(module: Module) -> None:
    module.fails = True
    documents = FreshDocuments(module.attest)
    refused = []

    async def call() -> None:
        with pytest.raises(AttestationFailed) as caught:
            await documents.fresh()
        refused.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
            await wait_all_tasks_blocked(0.01)
        module.may_answer.release()
        module.may_answer.release()
    assert refused == ["nsm: the Nitro Secure Module gave no document: InternalError"] * 3


async def test_who_is_cancelled_leaves_nobody_waiting(module: Module) -> None:
    documents = FreshDocuments(module.attest)
    found = []

    async def call() -> None:
        found.append(await documents.fresh())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await until_asked(module, 1)
        leader = trio.CancelScope()

        async def lead() -> None:
            with leader:
                await documents.fresh()

        nursery.start_soon(lead)
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(call)
        await wait_all_tasks_blocked(0.01)
        leader.cancel()
        module.may_answer.release()
        module.may_answer.release()
    assert found == [b"document 1", b"document 2"]


async def test_a_module_that_hangs_is_an_error(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kms_documents, "ATTEST_SECONDS", 0.05)
    documents = FreshDocuments(module.attest)
    with pytest.raises(AttestationFailed) as caught:
        await documents.fresh()
    assert caught.value.reason == "nsm_timeout"
