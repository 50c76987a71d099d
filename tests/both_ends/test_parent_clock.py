"""The parent's clock over a real link, by way of the stream socket."""

import socket
import time
from collections.abc import Iterator

import pytest
import trio

from tests.support.pair import Pair
from vsockproxy.client.for_trio import open_service
from vsockproxy.client.opening import try_to_connect
from vsockproxy.control.clock import QUESTIONS, ask_parent
from vsockproxy.protocols.clock_stream import (
    ANSWER_BYTES,
    MOST_QUESTIONS,
    SERVICE,
    encode_question,
    parse_answer,
)

SECONDS = 30.0


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Pair("unix", [], enclave={"shim": {"http_proxy": None}}) as pair:
        yield pair


def connection(pair: Pair) -> socket.socket:
    return try_to_connect(str(pair.streams))


async def receive(stream: trio.SocketStream, length: int) -> bytes:
    """So many bytes, or fewer at the end."""
    data = b""
    while len(data) < length and (piece := await stream.receive_some(length - len(data))):
        data += piece
    return data


async def test_both_clocks_of_one_machine_agree(pair: Pair) -> None:
    async def connect() -> trio.abc.Stream:
        return await open_service(connection(pair), SERVICE)

    with trio.fail_after(SECONDS):
        samples = await ask_parent(connect, time.time_ns)
    assert len(samples) == QUESTIONS
    for sample in samples:
        assert abs(sample.offset_ns) <= sample.round_trip_ns / 2 + 1_000_000


async def test_questions_in_pieces_and_in_heaps_are_answered_in_their_order(pair: Pair) -> None:
    questions = b"".join(map(encode_question, range(10)))
    with trio.fail_after(SECONDS):
        async with await open_service(connection(pair), SERVICE) as stream:
            await stream.send_all(questions[:5])
            await stream.send_all(questions[5:])
            answers = await receive(stream, 10 * ANSWER_BYTES)
            await stream.send_eof()
            assert await stream.receive_some() == b""
    numbers = [
        parse_answer(answers[at : at + ANSWER_BYTES])[0]
        for at in range(0, len(answers), ANSWER_BYTES)
    ]
    assert numbers == list(range(10))


async def test_who_asks_for_ever_is_cut(pair: Pair) -> None:
    questions = b"".join(map(encode_question, range(MOST_QUESTIONS + 1)))
    with trio.fail_after(SECONDS):
        async with await open_service(connection(pair), SERVICE) as stream:
            await stream.send_all(questions)
            with pytest.raises(trio.BrokenResourceError):
                await receive(stream, (MOST_QUESTIONS + 1) * ANSWER_BYTES)
