"""Events as plain values, which stay what they were when the session goes on."""

from collections.abc import Iterable

from vsockproxy.session import Stream
from vsockproxy.session.events import DataReceived, Event, SessionEnded

Described = tuple[object, ...]


def describe(events: Iterable[Event]) -> list[Described]:
    """Each event as a tuple: its name, then its fields, with ids for streams."""
    described: list[Described] = []
    for event in events:
        if isinstance(event, DataReceived):
            described.append(("DataReceived", event.stream.id, bytes(event.payload)))
        elif isinstance(event, SessionEnded):
            streams = [stream.id for stream in event.streams]
            described.append(("SessionEnded", int(event.code), event.text, event.is_clean, streams))
        else:
            values = (getattr(event, name) for name in event.__slots__)
            described.append((type(event).__name__, *map(_plain, values)))
    return described


def join(described: Iterable[Described]) -> list[Described]:
    """Join the data of one stream where it came in pieces, from one read or several."""
    joined: list[Described] = []
    for event in described:
        before = joined[-1] if joined else ()
        if event[0] == "DataReceived" and before[:2] == event[:2]:
            assert isinstance(before[2], bytes)
            assert isinstance(event[2], bytes)
            joined[-1] = ("DataReceived", event[1], before[2] + event[2])
        else:
            joined.append(event)
    return joined


def _plain(value: object) -> object:
    return value.id if isinstance(value, Stream) else value
