"""A unix socket between an enclave and its parent that does to connections what networks do.

    with Cutter(treat) as cutter:
        pair = Pair("unix", rules, link_path=cutter.path)
        cutter.target = str(pair.path / "link.sock")
        with pair: ...

`treat` says for each new connection what is to happen to it; `links` are those that stand.
"""

import contextlib
import select
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
        cut: a direction, and after how many of its bytes both ends are closed.
        largest_piece_bytes: the longest send.
        collected_bytes: bytes are held back until there are so many, or none come for a moment.
        handler: serves the connection in the parent's place, in a thread of its own.
    """

    cut: tuple[Direction, int] | None = None
    largest_piece_bytes: int = READ_BYTES
    collected_bytes: int = 1
    handler: Callable[[socket.socket], None] | None = None


PASSED_ON = Treatment()

Treat = Callable[[ConnectionKind, int], Treatment]
"""Gives the treatment of a connection, by its kind and its number among those of its kind."""


class Passage:
    """One connection that is forwarded.

    Args:
        treatment: what happens to it.
        enclave: the connection that the enclave dialled.
        parent: the connection to the parent.
    """

    def __init__(self, treatment: Treatment, enclave: socket.socket, parent: socket.socket) -> None:
        self._treatment = treatment
        self._enclave = enclave
        self._parent = parent
        self._open = threading.Event()
        self._open.set()
        self._left: dict[Direction, int] = {}
        if treatment.cut is not None:
            self.cut_after(*treatment.cut)

    def cut_after(self, direction: Direction, length_bytes: int) -> None:
        """Cut before more than so many bytes have passed, from now on."""
        self._left = {direction: length_bytes}

    def cut_no_more(self) -> None:
        """Forget a cut that has not happened."""
        self._left = {}

    def hold(self) -> None:
        """Let nothing pass until `let_go`."""
        self._open.clear()

    def let_go(self) -> None:
        """Let pass what was held."""
        self._open.set()

    def forward(self) -> None:
        """Forward both directions to their ends."""
        arguments = ("to_enclave", self._parent, self._enclave)
        thread = threading.Thread(target=self._copy, args=arguments, daemon=True)
        thread.start()
        self._copy("to_parent", self._enclave, self._parent)
        thread.join()

    def close(self) -> None:
        """Cut now."""
        for sock in (self._enclave, self._parent):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.let_go()

    def _copy(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := self._collect(source):
                self._open.wait()
                left = self._left.get(direction)
                if left is not None:
                    self._left = {direction: left - len(data)}
                    data = data[: max(left, 0)]
                for offset in range(0, len(data), self._treatment.largest_piece_bytes):
                    target.sendall(data[offset : offset + self._treatment.largest_piece_bytes])
                if left is not None and left <= len(data):
                    break
            else:
                target.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        self.close()  # a cut; or one end is gone, and so is the other

    def _collect(self, source: socket.socket) -> bytes:
        wanted = self._treatment.collected_bytes
        data = source.recv(READ_BYTES)
        while data and len(data) < wanted:
            if not select.select([source], [], [], QUIET_SECONDS)[0]:
                break
            more = source.recv(READ_BYTES)
            if not more:
                break  # it is seen again by the next recv
            data += more
        return data


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
        self._passages: dict[Passage, ConnectionKind] = {}

    @property
    def links(self) -> list[Passage]:
        """The links that stand."""
        with self._lock:
            return [passage for passage, kind in self._passages.items() if kind == "link"]

    @property
    def connections(self) -> int:
        """How many there have been."""
        with self._lock:
            return sum(self._counts.values())

    def __enter__(self) -> Self:
        self._listener.bind(self.path)
        self._listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            passages = list(self._passages)
        for passage in passages:
            passage.close()
        self._directory.cleanup()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, enclave: socket.socket) -> None:
        with contextlib.suppress(OSError), enclave, socket.socket(socket.AF_UNIX) as parent:
            first = enclave.recv(MAGIC_BYTES, socket.MSG_WAITALL | socket.MSG_PEEK)
            kind: ConnectionKind = "dedicated" if first == DEDICATED_MAGIC else "link"
            with self._lock:
                number = self._counts[kind]
                self._counts[kind] += 1
                treatment = self.treat(kind, number)
            if treatment.handler is not None:
                treatment.handler(enclave)
                return
            parent.connect(self.target)
            passage = Passage(treatment, enclave, parent)
            with self._lock:
                self._passages[passage] = kind
            try:
                passage.forward()
            finally:
                with self._lock:
                    del self._passages[passage]
