"""The far end of the checks: a server on the parent that the program in the enclave talks to.

A connection is one request, a line of ASCII: `SOURCE N` is answered by N bytes, `SINK N` takes N
bytes and answers with their SHA-256, `ECHO N` returns what it takes, `REPORT` takes a JSON object
up to the end of file. The bytes are those of `pattern`, which both ends know.
"""

import hashlib
import json
import queue
import socket
import threading
from typing import Any, Final

PIECE_BYTES: Final = 256 * 1024
MOST_REPORT_BYTES: Final = 64 * 1024
MOST_BYTES: Final = 1 << 34
_PATTERN: Final = hashlib.shake_256(b"vsockproxy").digest(1 << 20)


def pattern(offset: int, count: int) -> bytes:
    """Bytes `offset` to `offset + count` of the stream that both ends know."""
    start = offset % len(_PATTERN)
    return (_PATTERN[start:] + _PATTERN * (count // len(_PATTERN) + 1))[:count]


class Origin:
    """Serves on a port of loopback in threads of its own; `reports` has what REPORT brought."""

    def __init__(self) -> None:
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=64)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            verb, _, number = lines.readline(64).decode("ascii", "replace").strip().partition(" ")
            count = min(int(number or 0), MOST_BYTES)
            match verb:
                case "SOURCE":
                    for offset in range(0, count, PIECE_BYTES):
                        connection.sendall(pattern(offset, min(PIECE_BYTES, count - offset)))
                case "SINK":
                    digest = hashlib.sha256()
                    while count and (data := lines.read(min(count, PIECE_BYTES))):
                        digest.update(data)
                        count -= len(data)
                    connection.sendall(digest.hexdigest().encode())
                case "ECHO":
                    connection.sendall(lines.read(min(count, PIECE_BYTES * 16)))
                case "REPORT":
                    self.reports.put_nowait(json.loads(lines.read(MOST_REPORT_BYTES)))
