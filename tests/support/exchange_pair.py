"""A pair whose forwards and proxy lead to an origin that checks what it is sent."""

import itertools
import socket
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

from tests.support.exchanges import End, Origin, Program
from tests.support.observation import count, descriptors, wait_until
from tests.support.pair import LinkKind, Pair, Side, free_port, serving
from tests.support.traffic import start

Carrier = Literal["shared", "dedicated"]
CARRIERS: tuple[Carrier, ...] = ("shared", "dedicated")
Sizes = tuple[int, int]
"""Bytes that a program sends, and bytes that it wants."""

SEED = 20_261_123
HOST = "origin.test"
PORT = 443
RESULT_SECONDS = 90.0
DEFAULT_LINKS = 4


class ExchangePair:
    """Both sides, an origin, and one forward for each carrier; starts with the `with` block.

    Args:
        kind: what the links run over.
        parent: further keys of parent.yaml.
        enclave: further keys of enclave.yaml.
        link_path: where the enclave dials, where something stands between.
        other_cid: of whoever connects to `other_path`, a second listener of the parent (unix only).
        rules: further allow rules, for both sides.
        awaits_links: whether the `with` block begins when all links are up, or with the first.
    """

    def __init__(
        self,
        kind: LinkKind,
        *,
        parent: Mapping[str, Any] | None = None,
        enclave: Mapping[str, Any] | None = None,
        link_path: str | None = None,
        other_cid: int | None = None,
        rules: Sequence[dict[str, Any]] = (),
        awaits_links: bool = True,
    ) -> None:
        print(f"seed {SEED}")
        self.origin = Origin(SEED)
        self.program = Program(SEED)
        self.ports: dict[Carrier, int] = {carrier: free_port() for carrier in CARRIERS}
        self.links = (enclave or {}).get("links", DEFAULT_LINKS) * (enclave or {}).get("workers", 1)
        self._awaits_links = awaits_links
        self._numbers = itertools.count()
        self._stack = ExitStack()
        self.origin_port = self._stack.enter_context(serving(self.origin.serve))
        listen: dict[str, Any] = {}
        if other_cid is not None:
            prefix = "vsockproxy-links-"
            directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
            link_path, self.other_path = (f"{directory}/{name}.sock" for name in "ab")
            cids = {link_path: Pair.CID, self.other_path: other_cid}
            listen["listen"] = [f"unix://{path}?cid={cid}" for path, cid in cids.items()]
        rule = {"address": HOST, "port": PORT, "private": True, "require_tls": False}
        self.pair = Pair(
            kind,
            [rule, *rules],
            parent_rules=[{**rule, "dial": f"127.0.0.1:{self.origin_port}"}, *rules],
            parent={**listen, **(parent or {})},
            enclave={
                "forwards": [
                    {
                        "listen": f"tcp://127.0.0.1:{port}",
                        "to": f"{HOST}:{PORT}",
                        "carrier": carrier,
                    }
                    for carrier, port in self.ports.items()
                ],
                **(enclave or {}),
            },
            link_path=link_path,
        )
        self._stack.push(self.pair)

    def __enter__(self) -> Self:
        try:
            self.pair.__enter__()
            if self._awaits_links:
                self.wait_for_links()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def parent(self) -> Side:
        """The parent's side."""
        assert self.pair.parent is not None
        return self.pair.parent

    @property
    def enclave(self) -> Side:
        """The enclave's side."""
        assert self.pair.enclave is not None
        return self.pair.enclave

    def connect(self, carrier: Carrier) -> socket.socket:
        """A connection to a forward."""
        return socket.create_connection(("127.0.0.1", self.ports[carrier]), RESULT_SECONDS)

    def begin(self, carrier: Carrier, exchanges: int, sizes: Sizes) -> list[Future[End]]:
        """Begin so many exchanges at once; each goes where the fewest streams are."""

        def run(sock: socket.socket | None, number: int) -> End:
            if sock is None:
                return End.RESET
            return self.program.exchange(sock, number, *sizes).end

        socks: list[socket.socket | None] = []
        for _ in range(exchanges):
            try:
                socks.append(self.connect(carrier))
            except ConnectionResetError:  # sooner than connect(2) could say that it stood
                socks.append(None)
        return [start(partial(run, sock, next(self._numbers))) for sock in socks]

    def complete(self, carrier: Carrier, exchanges: int, sizes: Sizes) -> None:
        """Run so many exchanges at once, which must all be complete, at both ends."""
        for running in self.begin(carrier, exchanges, sizes):
            assert running.result(RESULT_SECONDS) is End.COMPLETE
        far_ends = Counter(outcome.end for outcome in self.origin.wait_for_all().values())
        # The origin may have been late to see how earlier ones ended.
        assert far_ends[End.COMPLETE] >= exchanges
        assert set(far_ends) <= {End.COMPLETE, End.RESET}

    def wait_for_links(self) -> None:
        """Wait until every link is up."""
        enclave = self.enclave
        wait_until(
            enclave, lambda: count(enclave, "link_up") - count(enclave, "link_down") == self.links
        )

    def wait_until_closed(self) -> None:
        """Wait until every stream that was opened has its close line on both sides."""

        def is_closed(side: Side) -> bool:
            return count(side, "decision", allowed=True) == count(side, "close")

        for side in (self.parent, self.enclave):
            wait_until(side, partial(is_closed, side))

    def held(self) -> dict[int, int]:
        """Descriptors of each worker when all links are up, no stream is, and all has settled."""
        self.wait_for_links()
        # What was cancelled has gone by the time that these have been served.
        for carrier in CARRIERS:
            self.complete(carrier, self.links, (100, 100))
        self.wait_until_closed()
        return {
            pid: descriptors(pid) for side in (self.parent, self.enclave) for pid in side.workers
        }


def converse(sock: socket.socket, text: bytes = b"are you there?") -> None:
    """Hear an echo, of any length that the way there and back can hold."""
    sock.sendall(text)
    heard = bytearray()
    while len(heard) < len(text):
        piece = sock.recv(65_536)
        assert piece, f"an end after {len(heard)} of {len(text)} bytes"
        heard += piece
    assert heard == text
