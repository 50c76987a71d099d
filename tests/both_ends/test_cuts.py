"""A connection that is cut, held, sliced or coalesced at any byte loses nothing unseen."""

import itertools
import random
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import ExitStack
from functools import partial

import pytest

from tests.support.cutter import PASSED_ON, ConnectionKind, Cutter, Direction, Treatment
from tests.support.exchanges import End, Origin, Program
from tests.support.observation import count, descriptors, plain_lines, wait_until
from tests.support.pair import Pair, Side, free_port, serving
from tests.support.traffic import start

LINKS = 16
SEED = 20_261_123
DIRECTIONS: tuple[Direction, ...] = ("to_parent", "to_enclave")

Cut = tuple[Direction, int]


class Rig:
    """A pair with a cutter between its halves, and exchanges through it, one on each link."""

    def __init__(self, stack: ExitStack) -> None:
        self.program = Program(SEED)
        self.origin = Origin(SEED)
        self.numbers = itertools.count()
        self.ports = {"shared": free_port(), "dedicated": free_port()}
        origin_port = stack.enter_context(serving(self.origin.serve))
        rule = {"address": "origin.test", "port": 443, "private": True, "require_tls": False}
        self.cutter = stack.enter_context(Cutter())
        self.pair = Pair(
            "unix",
            [rule],
            parent_rules=[{**rule, "dial": f"127.0.0.1:{origin_port}"}],
            # After so long a dedicated stream whose connection never brought its token is reset.
            parent={"limits": {"handshake": 1}},
            enclave={
                "links": LINKS,
                "forwards": [
                    {"listen": f"tcp://127.0.0.1:{port}", "to": "origin.test:443", "carrier": name}
                    for name, port in self.ports.items()
                ],
            },
            link_path=self.cutter.path,
        )
        self.cutter.target = str(self.pair.path / "link.sock")

    def wait_for_links(self) -> None:
        """Wait until every link is up."""
        enclave = self.pair.enclave
        assert enclave is not None
        wait_until(
            enclave, lambda: count(enclave, "link_up") - count(enclave, "link_down") == LINKS
        )

    def renew_links(self, treatment: Treatment) -> None:
        """Close all links; those that follow, and all other connections, are treated so."""
        enclave = self.pair.enclave
        assert enclave is not None
        self.cutter.treat = lambda kind, number: treatment
        ended = count(enclave, "link_down")
        for passage in self.cutter.links:
            passage.close()
        wait_until(enclave, lambda: count(enclave, "link_down") == ended + LINKS)
        self.wait_for_links()

    def connect(self, carrier: str) -> socket.socket | None:
        """A connection to a forward; None if it was reset before it could be used."""
        try:
            return socket.create_connection(("127.0.0.1", self.ports[carrier]), 60)
        except ConnectionResetError:
            return None

    def begin(self, carrier: str, sizes: tuple[int, int]) -> list[Future[End]]:
        """Begin one exchange on each link, as each stream goes where the fewest are."""

        def run(sock: socket.socket | None, number: int) -> End:
            if sock is None:
                return End.RESET
            return self.program.exchange(sock, number, *sizes).end

        socks = [self.connect(carrier) for _ in range(LINKS)]
        return [start(partial(run, sock, next(self.numbers))) for sock in socks]

    def exchange(
        self, carrier: str, sizes: tuple[int, int], cuts: Sequence[Cut] = ()
    ) -> Counter[End]:
        """One exchange on each link; how they ended for the program.

        Args:
            carrier: shared or dedicated.
            sizes: bytes out and in.
            cuts: one for each link, counted from now; those that are not reached are forgotten.
        """
        self.wait_for_links()
        for passage, cut in zip(self.cutter.links, cuts, strict=False):
            passage.cut_after(*cut)
        ends = Counter(future.result(90) for future in self.begin(carrier, sizes))
        for passage in self.cutter.links:
            passage.cut_no_more()
        far_ends = Counter(outcome.end for outcome in self.origin.wait_for_all().values())
        assert set(ends) | set(far_ends) <= {End.COMPLETE, End.RESET}, (ends, far_ends, cuts)
        return ends

    def held(self) -> dict[int, int]:
        """Descriptors of each worker, once all links are up and all streams are over."""
        parent, enclave = self.pair.parent, self.pair.enclave
        assert parent is not None
        assert enclave is not None
        assert self.exchange("shared", (100, 100)) == {End.COMPLETE: LINKS}
        for side in (parent, enclave):
            wait_until(side, partial(all_closed, side))
        return {pid: descriptors(pid) for side in (parent, enclave) for pid in side.workers}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        rig = Rig(stack)
        stack.enter_context(rig.pair)
        yield rig
        for side in (rig.pair.parent, rig.pair.enclave):
            assert side is not None
            assert plain_lines(side) == []


def all_closed(side: Side) -> bool:
    """Whether every stream that was opened has its close line."""
    return count(side, "decision", allowed=True) == count(side, "close")


def cut_points(most: int, count: int, seed: int) -> list[list[Cut]]:
    """Rounds of cuts: half of them in even steps up to `most`, half at random."""
    print(f"seed {seed}")
    chooser = random.Random(seed)
    steps = [most * step // count for step in range(count)]
    points = [(direction, point) for direction in DIRECTIONS for point in steps]
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
@pytest.mark.parametrize("carrier", ["shared", "dedicated"])
def test_a_link_that_is_cut_ends_its_streams_whole_or_with_a_reset(
    rig: Rig, carrier: str, sizes: tuple[int, int], most: int
) -> None:
    before = rig.held()
    ends: Counter[End] = Counter()
    for cuts in cut_points(most, 32, SEED):
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
    rig: Rig, sizes: tuple[int, int], most: int
) -> None:
    before = rig.held()
    cuts = itertools.chain.from_iterable(cut_points(most, 32, SEED))
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
    points: list[Cut] = [
        *(("to_parent", point) for point in (0, 1, 7, 8, 9, 10, 11, 60)),
        *(("to_enclave", point) for point in (0, 1, 7, 8, 9, 10, 11, 60)),
    ]

    def treat(_: ConnectionKind, number: int) -> Treatment:
        return Treatment(points[number]) if number < len(points) else PASSED_ON

    with ExitStack() as stack:
        rig = Rig(stack)
        rig.cutter.treat = treat
        stack.enter_context(rig.pair)
        assert rig.exchange("shared", (1000, 1000)) == {End.COMPLETE: LINKS}
        assert rig.cutter.connections == 2 * LINKS  # each was cut once, and then was not


def test_a_held_link_holds_its_own_stream_alone_and_goes_on_when_let_go(rig: Rig) -> None:
    rig.wait_for_links()
    held = rig.cutter.links[0]
    held.hold()
    running = rig.begin("shared", (300_000, 300_000))
    done = list(itertools.islice(as_completed(running, 60), LINKS - 1))
    assert Counter(future.result() for future in done) == {End.COMPLETE: LINKS - 1}
    (waiting,) = set(running) - set(done)
    assert not waiting.done()
    held.let_go()
    assert waiting.result(60) is End.COMPLETE


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
        for carrier in rig.ports:
            assert rig.exchange(carrier, (size, size)) == {End.COMPLETE: LINKS}
    finally:
        rig.renew_links(PASSED_ON)
