"""Windows and the budget: exhaustively on small numbers, then at the edges of large ones."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.session import ErrorCode, LocalProtocolError, PeerProtocolError, ReceiveBudget
from vsockproxy.session.credit import ReceiveWindow, SendWindow
from vsockproxy.session.limits import MAX_WINDOW_BYTES, PROVEN_FACTOR

SLOW = 0.0
"""A round trip so short that no window is used up within two of them."""
FAST = 1000.0
"""One so long that every window is."""


def new_window(size: int, total: int = 1 << 40) -> ReceiveWindow:
    budget = ReceiveBudget(total, 100)
    assert budget.admit_stream(size)
    return ReceiveWindow(budget, size, now=0.0)


@pytest.mark.parametrize("size", range(13))
def test_every_way_to_receive_and_consume_a_small_window(size: int) -> None:
    for received, consumed in product(range(size + 2), range(size + 2)):
        window = new_window(size)
        if received > size:
            with pytest.raises(PeerProtocolError) as caught:
                window.receive(received)
            assert caught.value.code == ErrorCode.FLOW_CONTROL
            assert window.received == 0, "what was refused does not count"
            continue
        window.receive(received)
        if consumed > received:
            with pytest.raises(LocalProtocolError, match="more bytes were consumed"):
                window.consume(consumed)
            continue
        is_due = window.consume(consumed)
        assert is_due is (size - consumed <= size // 2)
        if not is_due:
            continue
        assert window.grant(1.0, SLOW) is (consumed > 0)
        assert window.granted == consumed + size
        assert window.size_bytes == size
        assert window.granted - window.consumed <= size


@given(
    size=st.integers(1, 40),
    steps=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), max_size=60),
)
def test_a_window_that_does_not_grow(size: int, steps: list[tuple[int, int]]) -> None:
    window = new_window(size)
    grants = [window.granted]
    for arrive, take in steps:
        window.receive(min(arrive, window.granted - window.received))
        if window.consume(min(take, window.received - window.consumed)):
            grants.append(window.granted)
            assert window.grant(1.0, SLOW)
            assert window.granted - grants.pop() >= size - size // 2, "at least half a window"
            grants.append(window.granted)
        assert window.consumed <= window.received <= window.granted
        assert window.granted - window.consumed <= size
        assert window.granted - window.consumed > size // 2, "never less than half is open"
    assert grants == sorted(grants)


def proven_window(size: int) -> ReceiveWindow:
    """A window whose reader has taken enough for it to grow to any size."""
    window = new_window(size)
    window.received = window.consumed = PROVEN_FACTOR * MAX_WINDOW_BYTES
    window.granted = window.consumed + size
    return window


def use_up(window: ReceiveWindow, now: float, round_trip: float) -> int:
    """Receive and consume all that was granted; returns the window's size afterwards."""
    length = window.granted - window.received
    window.receive(length)
    assert window.consume(length)
    assert window.grant(now, round_trip)
    return window.size_bytes


def test_a_window_doubles_while_it_is_used_up_within_two_round_trips() -> None:
    window = proven_window(16384)
    sizes = [use_up(window, now / 100, round_trip=0.01) for now in range(1, 4)]
    assert sizes == [32768, 65536, 131072]


@pytest.mark.parametrize(
    ("seconds", "grows"),
    [(0.0, True), (0.019, True), (0.020, False), (0.021, False), (5.0, False)],
)
def test_two_round_trips_are_the_limit(seconds: float, grows: bool) -> None:
    window = proven_window(16384)
    assert use_up(window, seconds, round_trip=0.010) == (32768 if grows else 16384)


def test_the_time_counts_from_the_last_grant() -> None:
    window = proven_window(1000)
    assert use_up(window, 5.0, round_trip=1.0) == 1000
    assert use_up(window, 6.9, round_trip=1.0) == 2000


def test_a_window_grows_to_4_mib() -> None:
    window = proven_window(16384)
    sizes = [use_up(window, 0.0, FAST) for _ in range(12)]
    assert sizes[-1] == MAX_WINDOW_BYTES == 4 * 1024 * 1024
    assert window.budget.reserved_bytes == MAX_WINDOW_BYTES


@pytest.mark.parametrize(
    ("taken", "size"),
    [(0, 16384), (511 * 1024, 16384), (512 * 1024, 32768), (768 * 1024, 32768)],
    ids=[
        "nothing taken earns nothing",
        "what the kernel takes for a stopped reader earns nothing",
        "512 KiB earn a window of 32 KiB",
        "768 KiB earn no more than the double",
    ],
)
def test_a_window_grows_on_what_the_next_hop_has_taken(taken: int, size: int) -> None:
    window = new_window(16384)
    window.received = window.consumed = max(taken - 16384, 0)
    window.granted = window.consumed + 16384
    assert use_up(window, 0.0, FAST) == size


def test_a_first_window_above_4_mib_stays_as_it_is() -> None:
    window = new_window(8 * 1024 * 1024)
    assert use_up(window, 0.0, FAST) == 8 * 1024 * 1024


@pytest.mark.parametrize(
    ("total", "reserved", "size", "wanted", "added"),
    [
        (1000, 0, 10, 20, 10),
        (1000, 920, 10, 20, 10),
        (1000, 924, 10, 20, 9),
        (1000, 956, 10, 20, 1),
        (1000, 960, 10, 20, 0),
        (1000, 1000, 10, 20, 0),
        (100, 10, 10, 1000, 12),
        (10, 10, 10, 20, 0),
    ],
)
def test_a_window_grows_to_a_quarter_of_what_is_unreserved(
    total: int, reserved: int, size: int, wanted: int, added: int
) -> None:
    budget = ReceiveBudget(total, 10)
    budget.reserved_bytes = reserved
    assert budget.extend(size, wanted) == added
    assert budget.reserved_bytes == reserved + added


@given(
    total=st.integers(0, 300),
    first=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 9), st.sampled_from("odcgw")), max_size=80),
)
@pytest.mark.usefixtures("small_windows_grow")
def test_what_is_granted_is_always_reserved(
    total: int, first: int, steps: list[tuple[int, str]]
) -> None:
    budget = ReceiveBudget(total, 8)
    windows: list[ReceiveWindow] = []
    for number, what in steps:
        if what == "o":
            if budget.admit_stream(first):
                windows.append(ReceiveWindow(budget, first, 0.0))
            else:
                assert len(windows) == 8 or budget.unreserved_bytes < first
        elif windows:
            window = windows[number % len(windows)]
            if what == "d":
                windows.remove(window)
                budget.dismiss_stream(window.size_bytes)
            elif what == "c":
                window.receive((window.granted - window.received) // 2)
            elif what == "w":
                assert window.widen(number * first) in (True, False)
            elif window.consume(window.received - window.consumed):
                window.grant(0.0, FAST)
        assert budget.streams == len(windows)
        assert budget.reserved_bytes == sum(window.size_bytes for window in windows)
        assert budget.reserved_bytes <= total
        for window in windows:
            assert window.granted - window.consumed <= window.size_bytes
    for window in windows:
        budget.dismiss_stream(window.size_bytes)
    assert (budget.reserved_bytes, budget.streams) == (0, 0)


def test_a_budget_is_not_given_back_twice() -> None:
    budget = ReceiveBudget(100, 2)
    assert budget.admit_stream(10)
    budget.dismiss_stream(10)
    with pytest.raises(LocalProtocolError, match="more than it had reserved"):
        budget.dismiss_stream(0)
    budget = ReceiveBudget(100, 2)
    assert budget.admit_stream(10)
    with pytest.raises(LocalProtocolError, match="more than it had reserved"):
        budget.dismiss_stream(11)


def test_the_number_of_streams_is_a_limit_of_its_own() -> None:
    budget = ReceiveBudget(10**9, 2)
    assert [budget.admit_stream(1) for _ in range(3)] == [True, True, False]
    budget.dismiss_stream(1)
    assert budget.admit_stream(1)


def test_a_window_is_widened_as_far_as_the_budget_goes() -> None:
    window = new_window(100, total=1000)
    assert window.widen(150)
    assert (window.size_bytes, window.granted) == (150, 150)
    assert window.widen(10_000)
    assert (window.size_bytes, window.granted) == (850 // 4, 850 // 4)
    assert not window.widen(100), "never less than before"
    assert window.budget.reserved_bytes == 850 // 4


@pytest.mark.parametrize("limit", range(6))
def test_every_way_to_send_within_a_small_limit(limit: int) -> None:
    for sent, grant in product(range(8), range(8)):
        window = SendWindow(limit)
        if sent > limit:
            with pytest.raises(LocalProtocolError, match="exceed the peer's grant"):
                window.send(sent)
            assert window.sent == 0
            continue
        window.send(sent)
        assert window.sent == sent
        assert window.raise_to(grant) is (grant > limit)
        assert window.limit == max(limit, grant)


def test_totals_beyond_2_to_the_32() -> None:
    window = new_window(1000)
    window.received = window.consumed = 2**32 - 500
    window.granted = 2**32 + 500
    window.receive(1000)
    with pytest.raises(PeerProtocolError):
        window.receive(1)
    assert window.consume(1000)
    assert window.grant(1.0, SLOW)
    assert window.granted == 2**32 + 1500
