"""The recorded sessions and frames of every release are still understood, byte for byte."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support import session_frames as raw
from tests.support.session_transcripts import CURRENT, FOLDER, FRAMES, Replay
from vsockproxy.session import Hello, PrefaceReader
from vsockproxy.session.attesting import (
    MAX_EVIDENCE_BYTES,
    Evidence,
    MapReader,
    Result,
    demands_attestation,
    session_nonce,
    session_user_data,
)
from vsockproxy.session.frame_reader import FrameReader
from vsockproxy.session.frame_writer import FrameWriter
from vsockproxy.session.frames import FrameType
from vsockproxy.session.messages import Open, Opened, Refusal, Resolve, Resolved
from vsockproxy.session.opening import HIGHEST_VERSION

VERSIONS = sorted(FOLDER.glob("version-*"))
TRANSCRIPTS = sorted(FOLDER.glob("version-*/session*.json"))
DECODERS: dict[int, Callable[[bytes], Any]] = {
    raw.OPEN: Open.decode,
    raw.OPENED: Opened.decode,
    raw.REFUSED: Refusal.decode,
    raw.RESOLVE: Resolve.decode,
    raw.RESOLVED: Resolved.decode,
}


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_there_are_vectors_of_each_version() -> None:
    assert [int(folder.name.removeprefix("version-")) for folder in VERSIONS] == list(
        range(1, HIGHEST_VERSION + 1)
    )
    assert VERSIONS[-1] == CURRENT
    for folder in VERSIONS:
        assert {path.name for path in folder.iterdir()} == {
            "attestation.json",
            "frames.json",
            "session.json",
            "session-crc32.json",
        }


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=name)
def test_a_recorded_session_is_understood(path: Path) -> None:
    transcript = load(path)
    replay = Replay(transcript["hellos"])
    for number, step in enumerate(transcript["steps"]):
        sent = replay.do(step)
        if path.parent == CURRENT:
            assert sent.hex() == step["sends"], f"step {number}: {step['do']}"
        # A later version may say the same in other bytes; what was recorded goes to the other end.
        heard = replay.hear(step, bytes.fromhex(step["sends"]))
        assert heard == step["heard"], f"step {number}: {step['do']}"
    assert all(session.is_drained for session in replay.sessions.values())


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=name)
def test_the_recorded_hellos(path: Path) -> None:
    for text in load(path)["hellos"].values():
        hello = PrefaceReader(may_be_dedicated=True).receive(bytes.fromhex(text))
        assert isinstance(hello, Hello)
        assert hello.encode().hex() == text
        assert ("crc32" in hello.features) is path.stem.endswith("crc32")


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=name)
def test_every_type_of_frame_was_recorded(path: Path) -> None:
    sends = "".join(step["sends"] for step in load(path)["steps"])
    has_checksums = path.stem.endswith("crc32")
    types = {frame.type for frame in raw.frames(bytes.fromhex(sends), has_checksums=has_checksums)}
    assert types == set(raw.TYPES)


def recorded_frames() -> Iterable[Any]:
    for folder in VERSIONS:
        for case in load(folder / "frames.json"):
            yield pytest.param(case, folder == CURRENT, id=f"{folder.name}: {case['name']}")


@pytest.mark.parametrize(("case", "is_current"), list(recorded_frames()))
@pytest.mark.parametrize("has_checksums", [False, True], ids=["plain", "crc32"])
def test_a_recorded_frame(case: dict[str, Any], is_current: bool, has_checksums: bool) -> None:
    data = bytes.fromhex(case["frame_crc32" if has_checksums else "frame"])
    payload = bytes.fromhex(case["payload"])
    reader = FrameReader(case["sequence"], 0xFFFF, has_checksums=has_checksums)
    pieces = list(reader.read(memoryview(data)))
    assert reader.is_between_frames
    kind, _, stream, length, _ = pieces[0]
    assert (kind, stream, length) == (case["type"], case["stream"], len(payload))
    assert pieces[-1][1] == case["flags"]
    assert b"".join(piece[4] for piece in pieces) == payload
    if is_current:
        writer = FrameWriter(case["sequence"], has_checksums=has_checksums)
        assert writer.frame(FrameType(kind), stream, payload, case["flags"]) == data
    if kind in DECODERS and "later" not in case["name"]:
        assert DECODERS[kind](payload).encode() == payload


def test_each_type_has_a_recorded_frame() -> None:
    assert {kind for _, kind, *_ in FRAMES} == set(raw.TYPES)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_the_recorded_attestation(folder: Path) -> None:
    recorded = load(folder / "attestation.json")
    octets = {name: bytes.fromhex(text) for name, text in recorded.items()}
    hellos = [PrefaceReader(may_be_dedicated=False) for _ in range(2)]
    initiator = hellos[0].receive(octets["initiator_hello"])
    acceptor = hellos[1].receive(octets["acceptor_hello"])
    assert isinstance(initiator, Hello)
    assert isinstance(acceptor, Hello)
    assert demands_attestation(initiator, acceptor)
    assert session_nonce(hellos[0].message, hellos[1].message) == octets["nonce"]
    assert session_user_data(16) == octets["user_data_of_cid_16"]
    assert session_user_data(None) == octets["user_data_without_cid"]
    for name, value in (
        ("evidence", Evidence(b"document")),
        ("no_evidence", Evidence(refusal="/dev/nsm: no such file")),
        ("result", Result()),
        ("refusal", Result("attestation_refused", "nonce_mismatch: of another link")),
    ):
        body = MapReader(MAX_EVIDENCE_BYTES, name).receive(octets[name])
        assert body is not None
        assert type(value).decode(body) == value
        assert value.encode() == octets[name]
