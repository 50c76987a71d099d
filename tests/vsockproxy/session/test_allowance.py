"""How many streams each end may open, and with which ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.session import ErrorCode, PeerProtocolError
from vsockproxy.session.allowance import LocalStreams, RemoteStreams
from vsockproxy.session.frames import MAX_STREAM_ID


def test_our_ids() -> None:
    streams = LocalStreams(2, allowed=3)
    assert not streams.was_opened(2)
    assert [streams.take_id() for _ in range(3)] == [2, 4, 6]
    assert not streams.may_open
    assert streams.was_opened(6)
    assert not streams.was_opened(8)
    assert not streams.allow(3)
    assert not streams.allow(0)
    assert streams.allow(4)
    assert streams.may_open


def test_our_ids_end() -> None:
    streams = LocalStreams(MAX_STREAM_ID, allowed=2**63)
    assert streams.may_open
    assert not streams.are_used_up
    assert streams.take_id() == MAX_STREAM_ID == 2**31 - 1
    assert not streams.may_open
    assert streams.are_used_up
    assert streams.was_opened(MAX_STREAM_ID)


def test_their_ids() -> None:
    streams = RemoteStreams(1, most=10)
    assert streams.highest_id == 0
    for wrong in (2, 3, 5, 0x7FFFFFFF):
        with pytest.raises(PeerProtocolError, match=f"stream {wrong} was opened, 1 is next"):
            streams.open(wrong)
    streams.open(1)
    assert streams.highest_id == 1
    assert streams.was_opened(1)
    assert not streams.was_opened(3)
    with pytest.raises(PeerProtocolError) as caught:
        streams.open(1)
    assert caught.value.code == ErrorCode.PROTOCOL


@pytest.mark.parametrize("most", [0, 1, 2, 7])
def test_their_number(most: int) -> None:
    streams = RemoteStreams(2, most=most)
    for number in range(most):
        streams.open(2 + 2 * number)
    with pytest.raises(PeerProtocolError) as caught:
        streams.open(2 + 2 * most)
    assert caught.value.code == ErrorCode.STREAM_LIMIT


@given(most=st.integers(0, 40), steps=st.lists(st.sampled_from("ora"), max_size=200))
def test_no_more_exist_than_may_and_the_peer_is_never_stuck(most: int, steps: list[str]) -> None:
    streams = RemoteStreams(1, most)
    opened = released = 0
    announced = most
    for step in steps:
        if step == "o" and opened < announced:
            streams.open(1 + 2 * opened)
            opened += 1
        elif step == "r" and released < opened:
            streams.release()
            released += 1
        elif step == "a" and streams.is_announcement_due:
            total = streams.announce()
            assert total > announced, "an announcement always allows something new"
            announced = total
            assert not streams.is_announcement_due
        assert opened - released <= most
        if opened == announced and released + most > announced:
            assert streams.is_announcement_due, "a peer that can open none is told at once"


def test_announcements_come_in_large_steps_while_much_is_left() -> None:
    streams = RemoteStreams(1, most=800)
    announcements = 0
    for number in range(8000):
        streams.open(1 + 2 * number)
        streams.release()
        if streams.is_announcement_due:
            streams.announce()
            announcements += 1
    assert 80 <= announcements <= 100
