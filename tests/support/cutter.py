"""A unix socket between an enclave and its parent that does to connections what networks do.

    with Cutter(treat) as cutter:
        pair = Pair("unix", rules, link_path=cutter.path)
        cutter.target = pair.link_path
        with pair: ...

`treat` says for each connection what is to happen to it.
"""

import contextlib
import select
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from vsockproxy.session.opening import DEDICATED_MAGIC, MAGIC_BYTES

Direction = Literal["to_parent", "to_enclave"]
ConnectionKind = Literal["link", "dedicated"]

READ_BYTES = 64 * 1024
QUIET_SECONDS = 0.002
"""When bytes are collected: how long none may come before those that are there go on."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """What happens to one connection.

    Args:
        cut: the direction that is watched and how many of its bytes pass: then both ends are closed.
        largest_piece_bytes: the longest send.
        collected_bytes: bytes are held back until there are so many, or none come for a moment.
        gate: while it is not set, nothing passes.
        handler: serves the connection in the parent's place, in a thread of its own.
    """

    cut: tuple[Direction, int] | None = None
    largest_piece_bytes: int = READ_BYTES
    collected_bytes: int = 1
    gate: threading.Event | None = None
    handler: Callable[[socket.socket], None] | None = None


PASSED_ON = Treatment()

Treat = Callable[[ConnectionKind, int], Treatment]
"""Gives the treatment of a connection, by its kind and its number among those of its kind."""


class Cutter:
    """Forwards connections to `target`, each as `treat` says.

    Args:
        treat: asked once for each connection, when its first bytes have come.
    """

    def __init__(self, treat: Treat = lambda kind, number: PASSED_ON) -> None:
        self.treat = treat
        self.target = ""
        """Path of the parent's socket."""
        self._directory = tempfile.TemporaryDirectory(prefix="vsockproxy-cutter-")
        self.path = str(Path(self._directory.name, "link.sock"))
        """Where the enclave dials."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._lock = threading.Lock()
        self._counts: dict[ConnectionKind, int] = {"link": 0, "dedicated": 0}
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._listener.bind(self.path)
        self._listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._directory.cleanup()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, enclave: socket.socket) -> None:
        with self._lock:
            self._open.add(enclave)
        with contextlib.suppress(OSError), enclave:
            first = enclave.recv(MAGIC_BYTES, socket.MSG_WAITALL | socket.MSG_PEEK)
            kind: ConnectionKind = "dedicated" if first == DEDICATED_MAGIC else "link"
            with self._lock:
                number = self._counts[kind]
                self._counts[kind] += 1
                treatment = self.treat(kind, number)
            if treatment.handler is not None:
                treatment.handler(enclave)
            else:
                self._forward(enclave, treatment)
        with self._lock:
            self._open.discard(enclave)

    def _forward(self, enclave: socket.socket, treatment: Treatment) -> None:
        with socket.socket(socket.AF_UNIX) as parent:
            parent.connect(self.target)
            with self._lock:
                self._open.add(parent)
            passage = _Passage(treatment, (enclave, parent))
            arguments = ("to_enclave", parent, enclave)
            thread = threading.Thread(target=passage.copy, args=arguments, daemon=True)
            thread.start()
            passage.copy("to_parent", enclave, parent)
            thread.join()
            with self._lock:
                self._open.discard(parent)


@dataclass(slots=True)
class _Passage:
    """One connection that is forwarded."""

    treatment: Treatment
    sockets: tuple[socket.socket, socket.socket]

    def copy(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        """Copy one direction to its end, or to the cut."""
        treatment = self.treatment
        left = None
        if treatment.cut is not None and treatment.cut[0] == direction:
            left = treatment.cut[1]
        try:
            while left is None or left > 0:
                data = self._collect(source)
                if treatment.gate is not None:
                    treatment.gate.wait()
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                for offset in range(0, len(data), treatment.largest_piece_bytes):
                    target.sendall(data[offset : offset + treatment.largest_piece_bytes])
        except OSError:
            pass
        # A cut, or one end is gone: so is the other.
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _collect(self, source: socket.socket) -> bytes:
        wanted = self.treatment.collected_bytes
        data = source.recv(READ_BYTES)
        while data and len(data) < wanted:
            if not select.select([source], [], [], QUIET_SECONDS)[0]:
                break
            more = source.recv(READ_BYTES)
            if not more:
                break  # it is seen again by the next recv
            data += more
        return data
