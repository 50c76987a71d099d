"""An enclave by hand that brings its log to the parent, in frames and records of a test's own."""

import cbor2

from tests.support import session_frames as wire
from tests.support.hostile_peer import RawPeer
from vsockproxy.protocols.log_stream import SERVICE, Dropped, Exit, Line


class LoggingPeer(RawPeer):
    """One end of a link, of which each stream to a service has the next id."""

    next_stream = 1

    def open_service(self, service: str = SERVICE, *, dedicated: bool = False) -> int:
        """Ask for a service; the stream's id."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        asked: dict[int, object] = {4: service}
        if dedicated:
            asked[3] = True
        self.send(self.frame(wire.OPEN, stream, cbor2.dumps(asked, canonical=True)))
        return stream

    def open_log(self) -> tuple[int, int]:
        """Open a log; the stream's id and the position that the parent says."""
        stream = self.open_service()
        self.wait_for(wire.OPENED, stream)
        return stream, self.position(stream)

    def position(self, stream: int) -> int:
        """The next position on a stream."""
        return int.from_bytes(self.wait_for(wire.DATA, stream).payload)

    def say(self, stream: int, *records: Line | Dropped | Exit) -> None:
        """Send records."""
        data = b"".join(record.encode() for record in records)
        self.send(self.frame(wire.DATA, stream, data))
