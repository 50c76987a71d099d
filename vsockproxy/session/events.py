"""What a session tells its driver; each event is read at once, before the next receive.

A payload is a view into the driver's read buffer: it is only valid until that buffer is used again.
"""

from dataclasses import dataclass

from vsockproxy.session.messages import Open, Opened, Refusal, Resolve, Resolved
from vsockproxy.session.stream import Stream


@dataclass(slots=True)
class StreamOpened:
    """The peer opened a stream; answer with `accept` or `refuse`."""

    stream: Stream
    request: Open


@dataclass(slots=True)
class StreamAccepted:
    """The peer answered OPENED."""

    stream: Stream
    answer: Opened


@dataclass(slots=True)
class StreamRefused:
    """The peer answered REFUSED; the stream is closed."""

    stream: Stream
    refusal: Refusal


@dataclass(slots=True)
class DataReceived:
    """Bytes of a stream; report them with `consume` once the next hop has them."""

    stream: Stream
    payload: memoryview


@dataclass(slots=True)
class StreamFinished:
    """The peer sent its last byte; `total_bytes` is how many there were."""

    stream: Stream
    total_bytes: int


@dataclass(slots=True)
class StreamReset:
    """The stream is over at once in both directions; whatever is behind it must see a reset."""

    stream: Stream
    code: int


@dataclass(slots=True)
class StopReceived:
    """The peer discards what this end still sends; the session has finished the direction."""

    stream: Stream
    code: int


@dataclass(slots=True)
class CreditReceived:
    """The stream may send again."""

    stream: Stream


@dataclass(slots=True)
class StreamsAllowed:
    """The peer allows more streams to be opened."""


@dataclass(slots=True)
class ResolveReceived:
    """The peer asks for a name; answer with `answer_resolve`."""

    request_id: int
    question: Resolve


@dataclass(slots=True)
class ResolveAnswered:
    """The answer to a question of this end."""

    request_id: int
    answer: Resolved


@dataclass(slots=True)
class GoingAway:
    """The peer takes no new streams; none above `last_stream_id` was served."""

    last_stream_id: int
    text: str


@dataclass(slots=True)
class SessionEnded:
    """The session is over; every stream in `streams` ends with a reset. The last event."""

    code: int
    text: str
    is_clean: bool
    streams: list[Stream]


Event = (
    StreamOpened
    | StreamAccepted
    | StreamRefused
    | DataReceived
    | StreamFinished
    | StreamReset
    | StopReceived
    | CreditReceived
    | StreamsAllowed
    | ResolveReceived
    | ResolveAnswered
    | GoingAway
    | SessionEnded
)
