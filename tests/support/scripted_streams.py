"""A stream socket whose worker follows a script, in raw packets; each connection has a thread.

    with ScriptedStreams(tmp_path / "streams.sock", script) as streams:
        ... connect to streams.path ...

The script gets the connection and may use `pending` and `packet`; what it returns is closed.
"""

import array
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import cbor2

SECONDS = 30.0

OPEN, OPENED, REFUSED, RESOLVE, RESOLVED, PENDING = 1, 2, 3, 10, 11, 64

Script = Callable[[socket.socket], None]


def packet(kind: int, fields: dict[int, Any] | None = None) -> bytes:
    """A packet of the stream socket; without fields it is the kind alone."""
    return bytes([kind]) + (b"" if fields is None else cbor2.dumps(fields, canonical=True))


def request_of(connection: socket.socket) -> tuple[int, dict[int, Any]]:
    """What a program asks for: kind and fields."""
    data = connection.recv(1 << 16)
    return data[0], cbor2.loads(data[1:])


def send(connection: socket.socket, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send a packet, with descriptors."""
    rights = array.array("i", descriptors).tobytes()
    connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [])


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    return near, far


def pending(connection: socket.socket) -> socket.socket:
    """Say PENDING; the near end of the stream, which is the worker's."""
    near, far = tcp_pair()
    with far:
        send(connection, packet(PENDING), (far.fileno(),))
    return near


def reset(near: socket.socket) -> None:
    """Reset a stream."""
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    near.close()


def opens(connection: socket.socket) -> None:
    """A script: every stream stands, and echoes."""
    request_of(connection)
    with pending(connection) as near:
        send(connection, packet(OPENED, {1: "192.0.2.1"}))
        while data := near.recv(65_536):
            near.sendall(data)


def refuses(reason: str, text: str = "because") -> Script:
    """A script: every stream is refused."""

    def script(connection: socket.socket) -> None:
        request_of(connection)
        with pending(connection) as near:
            send(connection, packet(REFUSED, {1: reason, 2: text}))
            reset(near)

    return script


def is_gone(sock: socket.socket) -> bool:
    """Wait until the other end is closed; with or without what it had not read."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


class ScriptedStreams:
    """Listens within a `with` block.

    Args:
        path: of the socket.
        script: serves each connection.
    """

    def __init__(self, path: Path, script: Script) -> None:
        self.path = str(path)
        self.failures: list[Exception] = []
        """What scripts raised, other than errors of their sockets."""
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen(128)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._connections: list[socket.socket] = []

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            try:
                self._script(connection)
            except (AssertionError, ValueError, IndexError) as error:
                self.failures.append(error)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(SECONDS)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(SECONDS)
        if error_type is None:
            assert self.failures == []
