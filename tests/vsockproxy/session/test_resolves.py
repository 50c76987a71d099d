"""Questions for names, in both directions."""

import pytest

from tests.support.session_frames import (
    RESOLVE,
    RESOLVE_QUESTION,
    RESOLVED,
    RESOLVED_ANSWER,
)
from tests.support.session_pair import Alone, ended
from tests.support.wire_rules import covers
from vsockproxy.errors import Refused
from vsockproxy.session import ErrorCode, LocalProtocolError, Resolve, Resolved
from vsockproxy.session.events import ResolveAnswered, ResolveReceived
from vsockproxy.session.limits import MAX_RESOLVES
from vsockproxy.session.resolves import MAX_REQUEST_ID, Resolves

QUESTION = Resolve("h", 1)


def test_a_question_of_the_peer() -> None:
    alone = Alone()
    (event,) = alone.send(RESOLVE, 0xFFFFFFFF, RESOLVE_QUESTION)
    assert event == ResolveReceived(0xFFFFFFFF, QUESTION)
    assert alone.take() == []
    alone.session.answer_resolve(0xFFFFFFFF, Resolved())
    (frame,) = alone.take()
    assert frame[:4] == (RESOLVED, 0, 0xFFFFFFFF, RESOLVED_ANSWER)


def test_a_question_of_ours() -> None:
    alone = Alone()
    assert [alone.session.resolve(QUESTION) for _ in range(2)] == [1, 2]
    assert [frame[:4] for frame in alone.take()] == [
        (RESOLVE, 0, 1, RESOLVE_QUESTION),
        (RESOLVE, 0, 2, RESOLVE_QUESTION),
    ]
    assert alone.send(RESOLVED, 2, RESOLVED_ANSWER) == [ResolveAnswered(2, Resolved())]
    assert alone.send(RESOLVED, 1, RESOLVED_ANSWER) == [ResolveAnswered(1, Resolved())]


@covers("W-090")
@pytest.mark.parametrize("is_answer_due", [False, True])
def test_a_number_that_is_used_again_too_soon(is_answer_due: bool) -> None:
    alone = Alone()
    alone.send(RESOLVE, 5, RESOLVE_QUESTION)
    if is_answer_due:
        alone.session.answer_resolve(5, Resolved())
    event = ended(alone.send(RESOLVE, 5, RESOLVE_QUESTION))
    assert (event.code, event.text) == (ErrorCode.PROTOCOL, "question 5 was asked twice")


@covers("W-090")
def test_a_number_that_is_used_again_after_its_answer() -> None:
    alone = Alone()
    for _ in range(3):
        assert len(alone.send(RESOLVE, 5, RESOLVE_QUESTION)) == 1
        alone.session.answer_resolve(5, Resolved())
        assert len(alone.take()) == 1


@covers("W-091")
@pytest.mark.parametrize("answered", [0, 100])
def test_more_questions_than_may_be_open(answered: int) -> None:
    # Answers that were not sent yet count: a peer that does not read them asks no more.
    alone = Alone()
    for number in range(1, MAX_RESOLVES + 1):
        assert len(alone.send(RESOLVE, number, RESOLVE_QUESTION)) == 1
    for number in range(1, answered + 1):
        alone.session.answer_resolve(number, Resolved())
    assert ended(alone.send(RESOLVE, 999, RESOLVE_QUESTION)).code == ErrorCode.ABUSE


def test_we_ask_no_more_than_may_be_open() -> None:
    alone = Alone()
    for _ in range(MAX_RESOLVES):
        alone.session.resolve(QUESTION)
    with pytest.raises(Refused, match="limit: 256 name lookups are open"):
        alone.session.resolve(QUESTION)
    alone.take()
    alone.send(RESOLVED, 7, RESOLVED_ANSWER)
    assert alone.session.resolve(QUESTION) == MAX_RESOLVES + 1


@covers("W-092")
@pytest.mark.parametrize("number", [1, 2, 3, 0xFFFFFFFF])
def test_an_answer_that_nobody_asked_for(number: int) -> None:
    alone = Alone()
    alone.session.resolve(QUESTION)
    alone.send(RESOLVED, 1, RESOLVED_ANSWER)
    event = ended(alone.send(RESOLVED, number, RESOLVED_ANSWER))
    assert (event.code, event.text) == (
        ErrorCode.PROTOCOL,
        f"an answer {number} nobody asked for",
    )


def test_an_answer_to_a_question_that_was_not_asked_is_our_own_fault() -> None:
    alone = Alone()
    with pytest.raises(LocalProtocolError, match="nobody asked question 3"):
        alone.session.answer_resolve(3, Resolved())
    alone.send(RESOLVE, 3, RESOLVE_QUESTION)
    alone.session.answer_resolve(3, Resolved())
    with pytest.raises(LocalProtocolError):
        alone.session.answer_resolve(3, Resolved())


def test_numbers_go_round_and_pass_over_those_that_are_open() -> None:
    resolves = Resolves()
    resolves._next_id = MAX_REQUEST_ID
    resolves._asked = {1, 2, 5}
    assert [resolves.ask(QUESTION) for _ in range(4)] == [MAX_REQUEST_ID, 3, 4, 6]


TOO_LONG = {
    "257 records": Resolved(records=(b"x",) * 257),
    "a record of 1,025 bytes": Resolved(records=(b"x" * 1025,)),
    "16 KiB in all": Resolved(records=(b"x" * 1000,) * 17),
}


@pytest.mark.parametrize("case", TOO_LONG)
def test_an_answer_that_is_too_long_becomes_a_failure(case: str) -> None:
    """What a name server says is hostile, and must not end a session."""
    alone = Alone()
    alone.send(RESOLVE, 3, RESOLVE_QUESTION)
    alone.session.answer_resolve(3, TOO_LONG[case])
    (frame,) = alone.take()
    assert Resolved.decode(frame.payload) == Resolved("lookup_failed", "the answer is too long")


def test_the_longest_answer_arrives() -> None:
    asking, answering = Alone(is_initiator=True), Alone()
    asking.session.resolve(QUESTION)
    answering.send(RESOLVE, 1, asking.take()[0].payload)
    longest = Resolved(records=(b"x" * 1000,) * 16, ttl_seconds=60)
    answering.session.answer_resolve(1, longest)
    assert asking.send(RESOLVED, 1, answering.take()[0].payload) == [ResolveAnswered(1, longest)]


def test_nothing_is_asked_on_a_session_that_has_ended() -> None:
    alone = Alone()
    alone.session.receive_eof()
    with pytest.raises(LocalProtocolError, match="has ended"):
        alone.session.resolve(QUESTION)


def test_a_question_that_no_peer_takes_uses_no_number() -> None:
    alone = Alone()
    with pytest.raises(LocalProtocolError):
        alone.session.resolve(Resolve("a\0b", 1))
    assert alone.session.resolve(QUESTION) == 1
