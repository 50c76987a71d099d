"""A connection that is cut, held, sliced or coalesced at any byte loses nothing unseen."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed

import pytest

from tests.support.cutter import PASSED_ON, ConnectionKind, Cutter, Direction, Treatment
from tests.support.exchange_pair import (
    CARRIERS,
    RESULT_SECONDS,
    SEED,
    Carrier,
    ExchangePair,
    Sizes,
)
from tests.support.exchanges import End
from tests.support.observation import count, plain_lines, wait_until

LINKS = 16
DIRECTIONS: tuple[Direction, ...] = ("to_parent", "to_enclave")

Cut = tuple[Direction, int]


class Rig(ExchangePair):
    """A pair with a cutter between its halves."""

    def __init__(self, cutter: Cutter) -> None:
        super().__init__(
            "unix",
            # After so long a dedicated stream whose connection never brought its token is reset.
            parent={"limits": {"handshake": 1}},
            enclave={"links": LINKS},
            link_path=cutter.path,
        )
        self.cutter = cutter
        cutter.target = str(self.pair.path / "link.sock")

    def renew_links(self, treatment: Treatment) -> None:
        """Close all links; those that follow, and all other connections, are treated so."""
        self.cutter.treat = lambda kind, number: treatment
        ended = count(self.enclave, "link_down")
        for passage in self.cutter.links:
            passage.close()
        wait_until(self.enclave, lambda: count(self.enclave, "link_down") == ended + LINKS)
        self.wait_for_links()

    def exchange(self, carrier: Carrier, sizes: Sizes, cuts: Sequence[Cut] = ()) -> Counter[End]:
        """One exchange on each link; how they ended for the program.

        Args:
            carrier: of their streams.
            sizes: bytes out and in.
            cuts: one for each link, counted from now; those that are not reached are forgotten.
        """
        self.wait_for_links()
        for passage, cut in zip(self.cutter.links, cuts, strict=False):
            passage.cut_after(*cut)
        running = self.begin(carrier, LINKS, sizes)
        ends = Counter(future.result(RESULT_SECONDS) for future in running)
        for passage in self.cutter.links:
            passage.cut_no_more()
        far_ends = Counter(outcome.end for outcome in self.origin.wait_for_all().values())
        assert set(ends) | set(far_ends) <= {End.COMPLETE, End.RESET}, (ends, far_ends, cuts)
        return ends


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Cutter() as cutter, Rig(cutter) as rig:
        yield rig
        for side in (rig.parent, rig.enclave):
            assert plain_lines(side) == []


def cut_points(most: int, steps: int) -> list[list[Cut]]:
    """Rounds of cuts: half of them in even steps up to `most`, half at random."""
    chooser = random.Random(SEED)
    even = [most * step // steps for step in range(steps)]
    points = [(direction, point) for direction in DIRECTIONS for point in even]
    points += [(chooser.choice(DIRECTIONS), chooser.randrange(most)) for _ in points]
    chooser.shuffle(points)
    return [points[begin : begin + LINKS] for begin in range(0, len(points), LINKS)]


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        pytest.param((200, 200), 350, id="in the frames of a short exchange"),
        pytest.param((150_000, 150_000), 160_000, id="in long transfers both ways"),
    ],
)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_link_that_is_cut_ends_its_streams_whole_or_with_a_reset(
    rig: Rig, carrier: Carrier, sizes: Sizes, most: int
) -> None:
    before = rig.held()
    ends: Counter[End] = Counter()
    for cuts in cut_points(most, 32):
        ends += rig.exchange(carrier, sizes, cuts)
    assert set(ends) == {End.COMPLETE, End.RESET}
    assert rig.held() == before


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        pytest.param((200, 200), 260, id="in a short exchange"),
        pytest.param((150_000, 150_000), 200_000, id="in long transfers both ways"),
    ],
)
def test_a_dedicated_connection_that_is_cut_ends_its_stream_whole_or_with_a_reset(
    rig: Rig, sizes: Sizes, most: int
) -> None:
    before = rig.held()
    cuts = itertools.chain.from_iterable(cut_points(most, 16))
    rig.cutter.treat = lambda kind, _: Treatment(next(cuts)) if kind == "dedicated" else PASSED_ON
    try:
        ends: Counter[End] = Counter()
        for _ in range(4):
            ends += rig.exchange("dedicated", sizes)
    finally:
        rig.cutter.treat = lambda kind, number: PASSED_ON
    assert set(ends) == {End.COMPLETE, End.RESET}
    assert rig.held() == before


def test_links_that_are_cut_within_the_opening_exchange_are_dialled_again() -> None:
    points = [(direction, point) for direction in DIRECTIONS for point in (0, 1, 7, 8, 9, 11, 60)]

    def treat(_: ConnectionKind, number: int) -> Treatment:
        return Treatment(points[number]) if number < len(points) else PASSED_ON

    with Cutter(treat) as cutter, Rig(cutter) as rig:
        assert rig.exchange("shared", (1000, 1000)) == {End.COMPLETE: LINKS}
        assert cutter.connections == len(points) + LINKS


def test_a_held_link_holds_its_own_stream_alone_and_goes_on_when_let_go(rig: Rig) -> None:
    rig.wait_for_links()
    held = rig.cutter.links[0]
    held.hold()
    running = rig.begin("shared", LINKS, (300_000, 300_000))
    done = list(itertools.islice(as_completed(running, RESULT_SECONDS), LINKS - 1))
    assert Counter(future.result() for future in done) == {End.COMPLETE: LINKS - 1}
    (waiting,) = set(running) - set(done)
    assert not waiting.done()
    held.let_go()
    assert waiting.result(RESULT_SECONDS) is End.COMPLETE


@pytest.mark.parametrize(
    ("treatment", "size"),
    [
        pytest.param(Treatment(largest_piece_bytes=1), 3_000, id="byte by byte"),
        pytest.param(Treatment(largest_piece_bytes=13), 30_000, id="in pieces of 13 bytes"),
        pytest.param(Treatment(collected_bytes=64 * 1024), 300_000, id="in large pieces, late"),
    ],
)
def test_pieces_of_any_size_are_the_same_bytes(rig: Rig, treatment: Treatment, size: int) -> None:
    rig.renew_links(treatment)
    try:
        for carrier in CARRIERS:
            assert rig.exchange(carrier, (size, size)) == {End.COMPLETE: LINKS}
    finally:
        rig.renew_links(PASSED_ON)
