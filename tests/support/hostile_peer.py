"""A peer of a session that says whatever a test wants, frame by frame.

Hellos come from the session's own codec, frames are written by hand (`session_frames`).
"""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Self

import cbor2

from tests.support import session_frames as wire
from tests.support.session_frames import RawFrame
from vsockproxy.session import Hello, PrefaceReader

SECONDS = 30.0
HEADER_BYTES = 12


def make_hello(**fields: Any) -> Hello:
    """A hello that nobody objects to, but for what `fields` change."""
    usual = {
        "instance": b"hostile-instance",
        "first_sequence": 7,
        "first_window_bytes": 16 * 1024,
        "max_streams": 1024,
    }
    return Hello(**{**usual, **fields})


def open_payload(host: str, port: int, *, dedicated: bool = False) -> bytes:
    """The payload of OPEN."""
    fields: dict[int, object] = {1: host, 2: port}
    if dedicated:
        fields[3] = True
    return cbor2.dumps(fields, canonical=True)


class RawPeer(AbstractContextManager["RawPeer"]):
    """One end of a link, by hand.

    Args:
        sock: a connected socket; closed at the end of the `with` block.
        hello: what it says of itself.
        is_initiator: whether it dialled.
    """

    def __init__(
        self, sock: socket.socket, hello: Hello | None = None, *, is_initiator: bool = True
    ) -> None:
        self.sock = sock
        self.first_stream = 1 if is_initiator else 2
        self.hello = make_hello() if hello is None else hello
        self.sequence = self.hello.first_sequence
        self.remote: Hello | None = None
        self._received = bytearray()
        sock.settimeout(SECONDS)

    @classmethod
    def dial(cls, path: str, hello: Hello | None = None) -> Self:
        """Connect to a unix socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(path)
        return cls(sock, hello)

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def greet(self) -> Self:
        """The opening exchange, from either end: the other's hello does not wait for ours."""
        self.send(self.hello.encode())
        reader = PrefaceReader(may_be_dedicated=False)
        while self.remote is None:
            data = self.sock.recv(65_536)
            if not data:
                raise ConnectionResetError("closed within the opening exchange")
            preface = reader.receive(data)
            assert preface is None or isinstance(preface, Hello)
            self.remote = preface
        self._received += reader.rest
        return self

    def send(self, data: bytes) -> None:
        """Send bytes; nothing happens where the other end has closed already."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def frame(self, frame_type: int, stream: int, payload: bytes = b"", **lies: Any) -> bytes:
        """The next frame; `lies` are those of `session_frames.frame`, and `sequence`."""
        sequence = lies.pop("sequence", self.sequence)
        self.sequence += 1
        return wire.frame(frame_type, stream, payload, sequence=sequence, **lies)

    def open(self, stream: int, host: str, port: int, *, dedicated: bool = False) -> None:
        """Open a stream."""
        self.send(self.frame(wire.OPEN, stream, open_payload(host, port, dedicated=dedicated)))

    def frames(self) -> Iterator[RawFrame]:
        """The frames that arrive, until the other end closes."""
        while True:
            while len(self._received) >= HEADER_BYTES:
                whole = HEADER_BYTES + int.from_bytes(self._received[2:4])
                if len(self._received) < whole:
                    break
                taken = bytes(self._received[:whole])
                del self._received[:whole]
                yield next(wire.frames(taken))
            try:
                data = self.sock.recv(65_536)
            except ConnectionResetError:
                return
            if not data:
                return
            self._received += data

    def wait_for(self, frame_type: int, stream: int) -> RawFrame:
        """The next frame of a type on a stream; others before it are dropped."""
        for frame in self.frames():
            if frame.type == frame_type and frame.stream == stream:
                return frame
        raise AssertionError(f"no {wire.TYPES[frame_type]} on stream {stream} before the end")

    def last_word(self) -> int | None:
        """Read to the end; the code of the last GOAWAY, None without one."""
        code = None
        for frame in self.frames():
            if frame.type == wire.GOAWAY:
                code = int.from_bytes(frame.payload[4:8])
        return code
