"""A link in memory, and the smallest driver that keeps the session's contract.

Each direction of the link holds so many bytes, as a kernel's buffers do. Nothing waits: a driver
does what it can when `step` is called, and a test calls that until nothing moves any more.
"""

from collections import deque

from tests.support.session_pair import make_budget, make_hello
from vsockproxy.session import ErrorCode, Hello, Open, Opened, ReceiveBudget, Session, Stream
from vsockproxy.session.events import (
    CreditReceived,
    DataReceived,
    Event,
    SessionEnded,
    StopReceived,
    StreamAccepted,
    StreamFinished,
    StreamOpened,
    StreamRefused,
    StreamReset,
)
from vsockproxy.session.frames import HEADER_BYTES


class Pipe:
    """One direction of a link."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._held = bytearray()

    @property
    def held_bytes(self) -> int:
        """Bytes that were written and not read yet."""
        return len(self._held)

    def write(self, data: bytearray) -> int:
        """Take as much as fits; returns how much that was."""
        taken = min(len(data), self.capacity_bytes - len(self._held))
        self._held += data[:taken]
        return taken

    def read(self, most: int) -> bytes:
        """At most so many bytes."""
        data = bytes(self._held[:most])
        del self._held[:most]
        return data


class Endpoint:
    """What a program sees of one stream: what it sent, what it got, how it ended."""

    def __init__(self, stream: Stream, *, is_ours: bool) -> None:
        self.stream = stream
        self.is_ours = is_ours
        self.to_send = bytearray()
        self.is_finishing = False
        self.is_said_finished = False
        self.received = bytearray()
        self.unread = 0
        """Bytes received that the program has not taken."""
        self.is_reading = True
        self.is_remote_finished = False
        self.is_accepted = False
        self.ended: str | None = None
        """`finished`, `refused`, `reset`, `lost` or None while it goes on."""


class Driver:
    """One end of a link.

    Args:
        session: the session.
        incoming: where the peer's bytes come from.
        outgoing: where ours go.
        accepts: what to answer to OPEN; None answers nothing.
    """

    def __init__(
        self, session: Session, incoming: Pipe, outgoing: Pipe, *, accepts: bool | None = True
    ) -> None:
        self.session = session
        self.endpoints: dict[int, Endpoint] = {}
        self.ended: SessionEnded | None = None
        self.most_backlog_bytes = 0
        self._incoming = incoming
        self._outgoing = outgoing
        self._accepts = accepts
        self._backlog = bytearray()
        self._turns: deque[Endpoint] = deque()

    # ------------------------------------------------------------------- the program

    def open(self, now: float) -> Endpoint:
        """Open a stream."""
        return self._add(self.session.open(Open("h", 1), now), is_ours=True)

    def send(self, endpoint: Endpoint, data: bytes, *, finishes: bool = False) -> None:
        """The program writes, and perhaps finishes."""
        endpoint.to_send += data
        endpoint.is_finishing |= finishes

    def take(self, endpoint: Endpoint, now: float, most: int = 1 << 30) -> int:
        """The program reads what has arrived."""
        length = min(endpoint.unread, most)
        endpoint.unread -= length
        self.session.consume(endpoint.stream, length, now)
        return length

    def reset(self, endpoint: Endpoint, code: ErrorCode) -> None:
        """The program goes away."""
        self.session.reset(endpoint.stream, code)
        self._end(endpoint, "reset")

    # --------------------------------------------------------------------- the driver

    def step(self, now: float, read_bytes: int = 1 << 16) -> bool:
        """Read once, act, send what can be sent; whether any byte moved."""
        data = self._incoming.read(read_bytes)
        if data and self.ended is None:
            self.act(self.session.receive(memoryview(data), now))
            for endpoint in self.endpoints.values():
                if endpoint.is_reading and endpoint.unread:
                    self.take(endpoint, now)
        return self._flush() or bool(data)

    def act(self, events: list[Event]) -> None:
        """Do what events ask for."""
        for event in events:
            if isinstance(event, SessionEnded):
                self.ended = event
                for stream in event.streams:
                    self._end(self._of(stream), "lost")
            elif isinstance(event, StreamOpened):
                endpoint = self._add(event.stream, is_ours=False)
                if self._accepts:
                    self.session.accept(event.stream, Opened())
                    endpoint.is_accepted = True
                elif self._accepts is False:
                    self.session.refuse(event.stream, "denied", "")
                    self._end(endpoint, "refused")
            elif isinstance(event, DataReceived):
                endpoint = self._of(event.stream)
                endpoint.received += event.payload
                endpoint.unread += len(event.payload)
            elif isinstance(event, StreamAccepted):
                self._of(event.stream).is_accepted = True
            elif isinstance(event, StreamFinished):
                self._of(event.stream).is_remote_finished = True
                self._end_if_done(self._of(event.stream))
            elif isinstance(event, StreamRefused):
                self._end(self._of(event.stream), "refused")
            elif isinstance(event, StreamReset):
                self._end(self._of(event.stream), "reset")
            elif isinstance(event, StopReceived):
                endpoint = self._of(event.stream)
                endpoint.to_send.clear()
                endpoint.is_said_finished = True
                self._end_if_done(endpoint)
            else:
                assert isinstance(event, CreditReceived), event  # each step looks at credit anyway

    def _flush(self) -> bool:
        moved = self._drain()
        while not self._backlog:
            if self.session.has_control:
                self._backlog += self.session.control_to_send()
            elif not self._turn():
                break
            self.most_backlog_bytes = max(self.most_backlog_bytes, len(self._backlog))
            moved |= self._drain()
        return moved

    def _drain(self) -> bool:
        taken = self._outgoing.write(self._backlog)
        del self._backlog[:taken]
        return taken > 0

    def _turn(self) -> bool:
        """One DATA frame, or one FIN, of the stream whose turn it is."""
        for _ in range(len(self._turns)):
            endpoint = self._turns[0]
            self._turns.rotate(-1)
            if endpoint.ended or endpoint.is_said_finished:
                continue
            length = min(len(endpoint.to_send), self.session.sendable_bytes(endpoint.stream))
            if length:
                frame = bytearray(HEADER_BYTES) + endpoint.to_send[:length]
                frame += bytearray(self.session.trailer_bytes)
                del endpoint.to_send[:length]
                end = self.session.seal_data(frame, endpoint.stream, length)
                self._backlog += frame[:end]
                return True
            may_finish = endpoint.is_ours or endpoint.is_accepted
            if endpoint.is_finishing and not endpoint.to_send and may_finish:
                endpoint.is_said_finished = True
                self.session.finish(endpoint.stream)
                self._end_if_done(endpoint)
                return True
        return False

    def _add(self, stream: Stream, *, is_ours: bool) -> Endpoint:
        endpoint = self.endpoints[stream.id] = Endpoint(stream, is_ours=is_ours)
        stream.owner = endpoint
        self._turns.append(endpoint)
        return endpoint

    @staticmethod
    def _of(stream: Stream) -> Endpoint:
        assert isinstance(stream.owner, Endpoint)
        return stream.owner

    def _end_if_done(self, endpoint: Endpoint) -> None:
        if endpoint.is_said_finished and endpoint.is_remote_finished:
            self._end(endpoint, "finished")

    def _end(self, endpoint: Endpoint, how: str) -> None:
        if endpoint.ended is None:
            endpoint.ended = how
            self._turns.remove(endpoint)
            self.session.release(endpoint.stream)


class MemoryLink:
    """Two drivers and the link between them.

    Args:
        capacity_bytes: what each direction of the link holds.
        first_window_bytes: credit of each stream at first.
        max_payload_bytes: of a DATA frame.
        accepts: what the acceptor answers to OPEN.
        has_checksums: whether both ends name crc32.
    """

    def __init__(
        self,
        capacity_bytes: int,
        *,
        first_window_bytes: int = 16 * 1024,
        max_payload_bytes: int = 16 * 1024,
        budgets: tuple[ReceiveBudget, ReceiveBudget] | None = None,
        accepts: bool | None = True,
        has_checksums: bool = False,
    ) -> None:
        self.now = 1000.0
        self.pipes = (Pipe(capacity_bytes), Pipe(capacity_bytes))
        hellos: list[Hello] = [
            make_hello(
                is_initiator=is_initiator,
                first_window_bytes=first_window_bytes,
                max_streams=1000,
                features=["crc32"] if has_checksums else [],
            )
            for is_initiator in (True, False)
        ]
        self.budgets = budgets or (make_budget(), make_budget())
        sessions = [
            Session(
                is_initiator=end == 0,
                local=hellos[end],
                remote=hellos[1 - end],
                budget=self.budgets[end],
                now=self.now,
                max_payload_bytes=max_payload_bytes,
            )
            for end in (0, 1)
        ]
        self.initiator = Driver(sessions[0], self.pipes[1], self.pipes[0])
        self.acceptor = Driver(sessions[1], self.pipes[0], self.pipes[1], accepts=accepts)

    def open(self) -> tuple[Endpoint, Endpoint]:
        """A stream that the initiator opened, and the acceptor's end of it."""
        ours = self.initiator.open(self.now)
        self.run()
        return ours, self.acceptor.endpoints[ours.stream.id]

    def run(self, most_steps: int = 100_000) -> None:
        """Let both drivers step until nothing moves."""
        for _ in range(most_steps):
            self.now += 0.0001
            moved = self.initiator.step(self.now)
            if not self.acceptor.step(self.now) and not moved:
                return
        raise AssertionError(f"still moving after {most_steps} steps")
