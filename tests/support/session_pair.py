"""Sessions for tests: one against frames written by hand, or two against each other."""

from collections.abc import Iterable

from tests.support.session_frames import RawFrame, frame, frames
from vsockproxy.session import Hello, ReceiveBudget, Session
from vsockproxy.session.events import Event, SessionEnded

FIRST_WINDOW_BYTES = 16 * 1024
FIRST_SEQUENCE = {True: 0x11111111, False: 0x22222222}
"""By whether the end is the initiator."""

CRC32 = frozenset({"crc32"})


def make_hello(
    *,
    is_initiator: bool,
    first_window_bytes: int = FIRST_WINDOW_BYTES,
    max_streams: int = 100,
    max_payload_bytes: int = 0xFFFF,
    features: Iterable[str] = (),
    first_sequence: int | None = None,
) -> Hello:
    """A hello with fixed randomness."""
    return Hello(
        instance=bytes([0xA0 + is_initiator]) * 16,
        first_sequence=FIRST_SEQUENCE[is_initiator] if first_sequence is None else first_sequence,
        first_window_bytes=first_window_bytes,
        max_streams=max_streams,
        max_payload_bytes=max_payload_bytes,
        features=frozenset(features),
    )


def make_budget(total_bytes: int = 64 * 1024 * 1024, max_streams: int = 1000) -> ReceiveBudget:
    """A budget that is in nobody's way."""
    return ReceiveBudget(total_bytes, max_streams)


class Alone:
    """One session, and a peer that sends whatever the test says.

    Args:
        is_initiator: the role of the session under test; the peer has the other one.
        local: its hello.
        remote: the peer's.
        budget: its budget.
    """

    def __init__(
        self,
        *,
        is_initiator: bool = False,
        local: Hello | None = None,
        remote: Hello | None = None,
        budget: ReceiveBudget | None = None,
    ) -> None:
        self.local = local or make_hello(is_initiator=is_initiator)
        self.remote = remote or make_hello(is_initiator=not is_initiator)
        self.budget = budget or make_budget()
        self.now = 1000.0
        self.session = Session(
            is_initiator=is_initiator,
            local=self.local,
            remote=self.remote,
            budget=self.budget,
            now=self.now,
            max_payload_bytes=0xFFFF,
        )
        self.sequence = self.remote.first_sequence
        """Of the peer's next frame."""
        self.has_checksums = self.session.has_checksums
        self.take()  # the first PING

    def frame(self, frame_type: int, stream: int, payload: bytes = b"", *, flags: int = 0) -> bytes:
        """The peer's next frame, not sent yet."""
        data = frame(
            frame_type,
            stream,
            payload,
            flags=flags,
            sequence=self.sequence,
            has_checksum=self.has_checksums,
        )
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        return data

    def receive(self, data: bytes) -> list[Event]:
        """Bytes of the peer arrive."""
        return self.session.receive(memoryview(data), self.now)

    def send(
        self, frame_type: int, stream: int = 0, payload: bytes = b"", *, flags: int = 0
    ) -> list[Event]:
        """The peer sends one frame; what the session makes of it."""
        return self.receive(self.frame(frame_type, stream, payload, flags=flags))

    @property
    def abuse_points(self) -> int:
        """Points that the peer was charged so far, without what leaked."""
        return self.session.abuse.total

    def take(self) -> list[RawFrame]:
        """The control frames that the session wants to send."""
        output = self.session.control_to_send()
        assert not self.session.has_control
        return list(frames(output, has_checksums=self.has_checksums))


def ended(events: list[Event]) -> SessionEnded:
    """The last of `events`, which says that the session is over."""
    assert events, "the session went on"
    event = events[-1]
    assert isinstance(event, SessionEnded), events
    return event
