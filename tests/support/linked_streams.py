"""Two links against each other in one loop, with streams between them: no process, no policy."""

import socket

from tests.support.session_pair import make_budget, make_hello
from vsockproxy.dataplane.carriers import UNIX, Carrier
from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.loop import new_future, now
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.session import ErrorCode, Open, Opened, Session
from vsockproxy.session.messages import Resolve


class _Owner:
    """Accepts every stream, and keeps its end for whoever waits."""

    def __init__(self) -> None:
        self.arrived = new_future()

    def stream_opened(self, link: Link, end: StreamEnd, request: Open) -> None:
        del link, request
        end.accept(Opened())
        self.arrived.set_result(end)

    def resolve_received(self, link: Link, request_id: int, question: Resolve) -> None:
        raise AssertionError("nobody asks")

    def link_going_away(self, link: Link, text: str) -> None:
        """Nothing is opened afterwards."""

    def link_ended(self, link: Link, code: int, text: str, is_clean: bool) -> None:
        """The ends of the streams say so too."""


class LinkedStreams:
    """Made and used within a running loop.

    Args:
        carrier: sizes of both links.
        first_window_bytes: credit of each stream at first.
    """

    def __init__(self, carrier: Carrier = UNIX, first_window_bytes: int = 16 * 1024) -> None:
        socks = socket.socketpair()
        hellos = [
            make_hello(is_initiator=is_initiator, first_window_bytes=first_window_bytes)
            for is_initiator in (True, False)
        ]
        self._owners = [_Owner(), _Owner()]
        self.links: list[Link] = []
        for end, sock in enumerate(socks):
            sock.setblocking(False)
            session = Session(
                is_initiator=end == 0,
                local=hellos[end],
                remote=hellos[1 - end],
                budget=make_budget(),
                now=now(),
                max_payload_bytes=carrier.max_payload_bytes,
            )
            link = Link(sock, session, carrier, self._owners[end])
            link.begin(b"")
            self.links.append(link)

    async def open(self) -> tuple[StreamEnd, StreamEnd]:
        """A stream: the end that opened it, and the other one, which has accepted."""
        owner = self._owners[1]
        owner.arrived = new_future()
        near = self.links[0].open(Open("peer.test", 443), lambda end: None)
        self.links[0].flush()
        await near.opened(10)
        far: StreamEnd = await owner.arrived
        return near, far

    def close(self) -> None:
        """End both links."""
        for link in self.links:
            if not link.is_closed:
                link.go_away("the test is over")
        for link in self.links:
            if not link.is_closed:
                link.abort(ErrorCode.NONE, "the test is over")
