"""Whole sessions with fixed randomness: recorded as JSON, and replayed.

`python -m tests.support.session_transcripts` records the scenarios below for the version that this
tree speaks, and every kind of frame. What a release has recorded is never recorded again: a later
tree must still understand it, byte for byte.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from tests.support import session_frames as raw
from tests.support.session_events import describe, join
from vsockproxy.session import (
    ErrorCode,
    Hello,
    Open,
    Opened,
    PrefaceReader,
    ReceiveBudget,
    Resolve,
    Resolved,
    Session,
)
from vsockproxy.session.frames import HEADER_BYTES

FOLDER = Path(__file__).parents[1] / "vectors" / "session"
CURRENT = FOLDER / "version-1"

TOKEN = "000102030405060708090a0b0c0d0e0f"
LINES = "Every good boy deserves fudge. "

Step = dict[str, Any]


def _step(by: str, at: float = 0.0, **do: Any) -> Step:
    return {"by": by, "at": at, "do": do}


def _scenario() -> list[Step]:
    """Everything that two peers of good will say to each other, in small numbers."""
    i, a = "initiator", "acceptor"
    return [
        _step(i, verb="send"),
        _step(a, verb="send"),
        _step(i, 0.001, verb="open", host="kms.eu-west-1.amazonaws.com", port=443),
        _step(i, 0.001, verb="data", stream=1, text=LINES),
        _step(a, 0.002, verb="accept", stream=1, address="192.0.2.10:443"),
        _step(a, 0.002, verb="data", stream=1, text=LINES * 2),
        _step(a, 0.002, verb="consume", stream=1, length=31),
        _step(i, 0.003, verb="consume", stream=1, length=62),
        _step(a, 0.003, verb="data", stream=1, text=LINES),
        _step(i, 0.003, verb="finish", stream=1),
        _step(a, 0.004, verb="finish", stream=1),
        _step(i, 0.004, verb="open", host="example.com", port=80),
        _step(a, 0.005, verb="refuse", stream=3, reason="not_listed", text="example.com:80"),
        _step(a, 0.005, verb="release", stream=1),
        _step(a, 0.005, verb="release", stream=3),
        _step(a, 0.006, verb="open", service="web"),
        _step(i, 0.006, verb="accept", stream=2, window=128),
        _step(i, 0.006, verb="data", stream=2, text=LINES),
        _step(a, 0.007, verb="stop", stream=2, code=17),
        _step(i, 0.007, verb="send"),
        _step(a, 0.007, verb="data", stream=2, text=LINES * 4),
        _step(i, 0.008, verb="reset", stream=2, code=20),
        _step(i, 0.008, verb="open", host="203.0.113.7", port=5432, dedicated=True),
        _step(a, 0.009, verb="accept", stream=5, token=TOKEN),
        _step(i, 0.009, verb="end", stream=5, total=5_368_709_120),
        _step(a, 0.009, verb="end", stream=5, total=17),
        _step(i, 0.010, verb="open", host="2001:db8::1", port=65535),
        _step(i, 0.010, verb="reset", stream=7, code=16),
        _step(i, 0.011, verb="resolve", name="db.internal.example", type=33),
        _step(a, 0.011, verb="answer", number=1, record="0001000203e80000", ttl=60),
        _step(i, 0.012, verb="resolve", name="nowhere.example", type=1),
        _step(a, 0.012, verb="fail", number=2, reason="no_such_name", text="nowhere.example"),
        _step(i, 5.1, verb="wait"),
        _step(a, 5.1, verb="send"),
        _step(a, 5.2, verb="go_away", text="the parent is shutting down"),
        _step(i, 5.2, verb="send"),
    ]


SCENARIOS: dict[str, tuple[list[str], Callable[[], list[Step]]]] = {
    "session": ([], _scenario),
    "session-crc32": (["crc32"], _scenario),
}

# ----------------------------------------------------------------------------- what is done


def _open(session: Session, do: Step, at: float) -> None:
    request = Open(
        host=do.get("host", ""),
        port=do.get("port", 0),
        dedicated=do.get("dedicated", False),
        service=do.get("service", ""),
    )
    session.open(request, at)


def _accept(session: Session, do: Step, at: float) -> None:
    token = bytes.fromhex(do["token"]) if "token" in do else None
    answer = Opened(do.get("address", ""), token, do.get("window"))
    session.accept(session.streams[do["stream"]], answer)


def _resolved(session: Session, do: Step, at: float) -> None:
    answer = Resolved(records=(bytes.fromhex(do["record"]),), ttl_seconds=do["ttl"])
    session.answer_resolve(do["number"], answer)


VERBS: dict[str, Callable[[Session, Step, float], object]] = {
    "send": lambda session, do, at: None,
    "wait": lambda session, do, at: session.handle_deadline(at),
    "open": _open,
    "accept": _accept,
    "refuse": lambda session, do, at: session.refuse(
        session.streams[do["stream"]], do["reason"], do["text"]
    ),
    "consume": lambda session, do, at: session.consume(
        session.streams[do["stream"]], do["length"], at
    ),
    "finish": lambda session, do, at: session.finish(session.streams[do["stream"]]),
    "end": lambda session, do, at: session.end(session.streams[do["stream"]], do["total"]),
    "stop": lambda session, do, at: session.stop(
        session.streams[do["stream"]], ErrorCode(do["code"])
    ),
    "reset": lambda session, do, at: session.reset(
        session.streams[do["stream"]], ErrorCode(do["code"])
    ),
    "resolve": lambda session, do, at: session.resolve(Resolve(do["name"], do["type"])),
    "answer": _resolved,
    "fail": lambda session, do, at: session.answer_resolve(
        do["number"], Resolved(do["reason"], do["text"])
    ),
    "go_away": lambda session, do, at: session.go_away(do["text"]),
}


class Replay:
    """Two sessions that do what a transcript says.

    Args:
        hellos: of the initiator and the acceptor, as they stood on the wire.
    """

    def __init__(self, hellos: Mapping[str, str]) -> None:
        decoded: dict[str, Hello] = {}
        for name, text in hellos.items():
            hello = PrefaceReader(may_be_dedicated=False).receive(bytes.fromhex(text))
            assert isinstance(hello, Hello)
            decoded[name] = hello
        self.sessions = {
            name: Session(
                is_initiator=name == "initiator",
                local=decoded[name],
                remote=decoded[other],
                budget=ReceiveBudget(1 << 20, 100),
                now=0.0,
                max_payload_bytes=40,
            )
            for name, other in (("initiator", "acceptor"), ("acceptor", "initiator"))
        }
        self._streams: dict[str, dict[int, Any]] = {name: {} for name in self.sessions}

    def do(self, step: Step) -> bytes:
        """Do a step; the bytes that its side sends then."""
        session, do = self.sessions[step["by"]], step["do"]
        known = self._streams[step["by"]]
        known.update(session.streams)
        output = b""
        if do["verb"] == "release":
            session.release(known[do["stream"]])
        elif do["verb"] == "data":
            stream, data = session.streams[do["stream"]], do["text"].encode()
            while data:
                piece, data = data[:40], data[40:]
                buffer = bytearray(HEADER_BYTES) + piece + bytes(session.trailer_bytes)
                output += buffer[: session.seal_data(buffer, stream, len(piece))]
        else:
            VERBS[do["verb"]](session, do, step["at"])
        return output + session.control_to_send()

    def hear(self, step: Step, sent: bytes) -> list[Any]:
        """What the other side makes of the bytes, as JSON has it."""
        other = "acceptor" if step["by"] == "initiator" else "initiator"
        events = self.sessions[other].receive(memoryview(sent), step["at"])
        self._streams[other].update(self.sessions[other].streams)
        return [_plain(event) for event in join(describe(events))]


def _plain(value: object) -> Any:
    """A value as JSON has it: bytes in hexadecimal, messages as their fields that say something."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {
            name: _plain(item) for name, item in asdict(value).items() if item not in ("", None, ())
        }
    return value


def make_hellos(features: list[str]) -> dict[str, str]:
    """The hellos of the recorded sessions: small windows, and sequence numbers that wrap."""
    return {
        name: Hello(
            instance=bytes([number]) * 16,
            first_sequence=0xFFFFFFF0 + number,
            first_window_bytes=64,
            max_streams=4,
            max_payload_bytes=1024,
            features=frozenset(features),
        )
        .encode()
        .hex()
        for number, name in enumerate(("initiator", "acceptor"))
    }


def record(features: list[str], steps: list[Step]) -> Step:
    """Play a scenario, and write down who sent what, and what the other heard."""
    hellos = make_hellos(features)
    replay = Replay(hellos)
    recorded = []
    for step in steps:
        sent = replay.do(step)
        recorded.append({**step, "sends": sent.hex(), "heard": replay.hear(step, sent)})
    return {"hellos": hellos, "steps": recorded}


# ------------------------------------------------------------------------ frames one by one

FRAMES: list[tuple[str, int, int, int, str]] = [
    ("OPEN of a host", raw.OPEN, 0, 1, "a201616802187b"),
    ("OPEN of a service, dedicated", raw.OPEN, 0, 2, "a203f50463776562"),
    ("OPEN with a key of a later version", raw.OPEN, 0, 1, "a301616802187b09656c61746572"),
    ("OPENED", raw.OPENED, 0, 1, "a0"),
    ("OPENED with an address and credit", raw.OPENED, 0, 1, "a20169312e322e332e343a35031a00010000"),
    ("OPENED with a token", raw.OPENED, 0, 1, "a10250" + TOKEN),
    ("REFUSED", raw.REFUSED, 0, 1, "a201656c696d697402646d616e79"),
    ("DATA", raw.DATA, 0, 1, "64617461"),
    ("DATA with FIN", raw.DATA, raw.FIN, 1, "6c617374"),
    ("FIN alone", raw.DATA, raw.FIN, 1, ""),
    ("CREDIT beyond 2^32", raw.CREDIT, 0, 1, "0000000140000000"),
    ("MAX_STREAMS", raw.MAX_STREAMS, 0, 0, "0000000000004000"),
    ("RESET", raw.RESET, 0, 1, "000000140000000000000000"),
    ("STOP", raw.STOP, 0, 1, "00000011"),
    ("END beyond 2^32", raw.END, 0, 1, "0000000140000000"),
    ("RESOLVE", raw.RESOLVE, 0, 7, "a2016b6578616d706c652e636f6d0201"),
    ("RESOLVED with records", raw.RESOLVED, 0, 7, "a2038244c000020144c00002020419012c"),
    ("RESOLVED with a reason", raw.RESOLVED, 0, 7, "a2016c6e6f5f737563685f6e616d650400"),
    ("PING", raw.PING, 0, 0, "000000000000002a"),
    ("PONG", raw.PONG, 0, 0, "000000000000002a"),
    ("GOAWAY, orderly", raw.GOAWAY, 0, 0, "0000000300000000"),
    ("GOAWAY with an error", raw.GOAWAY, 0, 0, "0000000300000007746f6f206d616e79"),
]
"""Name, type, flags, stream, payload."""


def record_frames() -> list[Step]:
    """Each frame on the wire, with and without a checksum."""
    return [
        {
            "name": name,
            "type": kind,
            "flags": flags,
            "stream": stream,
            "sequence": 0x01020304,
            "payload": payload,
            "frame": _frame(kind, flags, stream, payload, has_checksum=False),
            "frame_crc32": _frame(kind, flags, stream, payload, has_checksum=True),
        }
        for name, kind, flags, stream, payload in FRAMES
    ]


def _frame(kind: int, flags: int, stream: int, payload: str, *, has_checksum: bool) -> str:
    return raw.frame(
        kind,
        stream,
        bytes.fromhex(payload),
        sequence=0x01020304,
        flags=flags,
        has_checksum=has_checksum,
    ).hex()


def main() -> None:
    """Record everything for the current version."""
    CURRENT.mkdir(parents=True, exist_ok=True)
    for name, (features, steps) in SCENARIOS.items():
        _write(CURRENT / f"{name}.json", record(features, steps()))
    _write(CURRENT / "frames.json", record_frames())


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
