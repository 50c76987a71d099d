"""Services of the parent on the stream socket: for our own processes, and for nobody else."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import trio

from enclave_side.shim.streams import FOREIGN_TEXT
from tests.support.pair import Pair
from vsockproxy.client.errors import StreamRefused
from vsockproxy.client.for_trio import open_service
from vsockproxy.client.opening import try_to_connect
from vsockproxy.protocols.log_stream import SERVICE, Line, Source, encode_position

NOBODY = 65_534
SECONDS = 30.0


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Pair("unix", [], enclave={"shim": {"http_proxy": None}}) as pair:
        pair.path.chmod(0o711)
        yield pair


@contextmanager
def as_user(user: int) -> Iterator[None]:
    """Have another effective user while the body runs."""
    before = os.geteuid()
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(before)


def connection(pair: Pair) -> socket.socket:
    return try_to_connect(str(pair.streams))


async def test_our_own_user_speaks_with_a_service_of_the_parent(pair: Pair) -> None:
    assert pair.parent is not None
    with trio.fail_after(SECONDS):
        async with await open_service(connection(pair), SERVICE) as stream:
            assert await stream.receive_some() == encode_position(0)
            await stream.send_all(Line(0, Source.STDOUT, b"by hand").encode())
            assert await stream.receive_some() == encode_position(1)
    pair.parent.wait_for_event("enclave_log", text="by hand")


async def test_the_parent_says_which_service_it_has_not(pair: Pair) -> None:
    with trio.fail_after(SECONDS), pytest.raises(StreamRefused) as caught:
        await open_service(connection(pair), "vsockproxy.nothing")
    assert caught.value.reason == "not_listed"
    assert caught.value.text == "the parent offers no service of the name vsockproxy.nothing"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_before_the_parent_is_asked(pair: Pair) -> None:
    assert pair.enclave is not None
    assert pair.parent is not None
    after = len(pair.enclave.lines)
    with as_user(NOBODY):
        theirs = connection(pair)
    with closing(theirs), trio.fail_after(SECONDS), pytest.raises(StreamRefused) as caught:
        await open_service(theirs, SERVICE)
    told = pair.enclave.wait_for_event("decision", after=after, host=SERVICE)
    assert (told["allowed"], told["reason"], told["side"]) == (False, "not_listed", "enclave")
    assert told["text"] == caught.value.text == FOREIGN_TEXT
    assert not pair.parent.events("enclave_log_broken")
