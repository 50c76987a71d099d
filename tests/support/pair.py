"""Both sides as real processes, for tests: `vsockproxy parent` and `vsockproxy enclave`."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

LinkKind = Literal["unix", "vsock"]
Line = dict[str, Any]

READY_SECONDS = 60.0
"""User Mode Linux takes some seconds to start a Python."""

PASS_STDIN = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null'
"""A shell script that passes its stdin on as sd_listen_fds(3) has it."""

VSOCK_LOOPBACK_CID = 1
SHOWN_LINES = 20


_FIRST_PORT = 10_000
_PORTS = 22_768
"""Up to the ports that the kernel gives to connections (net.ipv4.ip_local_port_range)."""

_numbers = itertools.count(os.getpid() * 7919)


def free_port() -> int:
    """A TCP port that nobody listens on; none is given twice, and no connection happens to get it.

    Processes of the same run begin at different places.
    """
    for number in _numbers:
        port = _FIRST_PORT + number % _PORTS
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the numbers do not end")


class Side:
    """One side's supervisor process and everything it logs.

    Args:
        name: `parent` or `enclave`.
        config: path of its file.
        command: the command of an enclave.
        passed: a listening socket that it is started with, as systemd does it.
    """

    def __init__(
        self,
        name: str,
        config: Path,
        command: tuple[str, ...] = (),
        *,
        passed: socket.socket | None = None,
    ) -> None:
        self.name = name
        self.lines: list[Line] = []
        self.raw: list[str] = []
        self._changed = threading.Condition()
        after = ["--", *command] if command else []
        before = ["/bin/sh", "-c", PASS_STDIN, "sh"] if passed is not None else []
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "vsockproxy", name, "--config", str(config), *after],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE if command else subprocess.DEVNULL,
            stdin=subprocess.DEVNULL if passed is None else passed.fileno(),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            text = raw.decode(errors="replace").rstrip()
            with self._changed:
                self.raw.append(text)
                with contextlib.suppress(ValueError):
                    self.lines.append(json.loads(text))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(
        self, wanted: Callable[[Line], bool], *, after: int = 0, seconds: float = READY_SECONDS
    ) -> Line:
        """The first line, from the one with index `after`, that `wanted` accepts."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for line in self.lines[after:]:
                    if wanted(line):
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise AssertionError(
                        f"the {self.name} never logged that; it said:\n" + "\n".join(self.raw)
                    )
                self._changed.wait(left)

    def wait_for_event(self, event: str, *, after: int = 0, **fields: object) -> Line:
        """The first line of an event with the given fields."""
        return self.wait_for(
            lambda line: (
                line["event"] == event
                and all(line.get(key) == value for key, value in fields.items())
            ),
            after=after,
        )

    def wait_for_count(self, event: str, count: int) -> None:
        """Wait until an event has been logged so many times."""
        self.wait_for(lambda _: sum(line["event"] == event for line in self.lines) >= count)

    def events(self, event: str) -> list[Line]:
        """The lines of one event so far."""
        with self._changed:
            return [line for line in self.lines if line["event"] == event]

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    @property
    def processes(self) -> list[int]:
        """Process ids of the supervisor and its workers."""
        return [self.process.pid, *self.workers]

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        self._reader.join(20)
        return status

    def kill(self) -> None:
        """SIGKILL to the supervisor and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        workers = []
        with contextlib.suppress(FileNotFoundError):
            workers = self.workers
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)
        self._reader.join(20)
        for stream in (self.process.stderr, self.process.stdout):
            if stream is not None:
                stream.close()


class Pair:
    """A parent and an enclave with one link kind between them.

    Args:
        kind: what the links run over.
        rules: allow rules for both sides.
        parent: further keys of parent.yaml.
        enclave: further keys of enclave.yaml.
        parent_rules: allow rules for the parent, where they differ.
        link_path: where the enclave dials on a unix link, where something stands between.
    """

    CID = 16

    def __init__(
        self,
        kind: LinkKind,
        rules: list[dict[str, Any]],
        *,
        parent: Mapping[str, Any] | None = None,
        enclave: Mapping[str, Any] | None = None,
        parent_rules: list[dict[str, Any]] | None = None,
        link_path: str | None = None,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="vsockproxy-test-")
        self.path = Path(self._directory.name)
        self.kind = kind
        self.proxy_port = free_port()
        self.streams = self.path / "streams.sock"
        allowed = rules if parent_rules is None else parent_rules
        listed: dict[str, Any]
        if kind == "unix":
            listen = f"unix://{self.path}/link.sock?cid={self.CID}"
            dial = f"unix://{link_path or self.path / 'link.sock'}"
            listed = {"allowlist": allowed}
        else:
            port = 20_000 + free_port() % 20_000
            listen = f"vsock://any:{port}"
            dial = f"vsock://{VSOCK_LOOPBACK_CID}:{port}"
            listed = {"enclaves": [{"cid": VSOCK_LOOPBACK_CID, "allowlist": allowed}]}
        self.parent_config = self._write(
            "parent.yaml", {"listen": listen, **listed, **(parent or {})}
        )
        self.enclave_config = self._write(
            "enclave.yaml",
            {
                "parent": dial,
                "allowlist": rules,
                **(enclave or {}),
                "shim": {
                    "streams": str(self.streams),  # of this pair alone
                    **(enclave or {}).get("shim", {"http_proxy": f"127.0.0.1:{self.proxy_port}"}),
                },
            },
        )
        self.parent: Side | None = None
        self.enclave: Side | None = None

    def _write(self, name: str, content: Mapping[str, Any]) -> Path:
        path = self.path / name
        # JSON is YAML, so the files need no YAML writer.
        path.write_text(json.dumps({"log": {"format": "json"}, **content}, indent=1))
        return path

    def start_parent(self) -> Side:
        """Start the parent's side and wait until it listens."""
        self.parent = Side("parent", self.parent_config)
        self.parent.wait_for_event("ready")
        return self.parent

    def start_enclave(self, *command: str, links: bool = True) -> Side:
        """Start the enclave's side and wait until its ways in listen and a link is up."""
        self.enclave = Side("enclave", self.enclave_config, command)
        self.enclave.wait_for_event("ready")
        if links:
            self.enclave.wait_for_event("link_up")
        return self.enclave

    def __enter__(self) -> Self:
        try:
            self.start_parent()
            self.start_enclave()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        if error_type is not None:
            for side in (self.parent, self.enclave):
                if side is not None:
                    print(f"the {side.name} said last:", *side.raw[-SHOWN_LINES:], sep="\n")
        self.close()

    def close(self) -> None:
        """Kill what still runs, remove the files."""
        for side in (self.enclave, self.parent):
            if side is not None:
                side.kill()
        self._directory.cleanup()

    def connect(self, host: str, port: int, *, timeout: float = 30.0) -> socket.socket:
        """A tunnel through the HTTP proxy; the answer's head has been read."""
        sock, head = self.ask(
            f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n", timeout
        )
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            sock.close()
            raise AssertionError(f"the proxy said {head!r}")
        return sock

    def ask(self, request: str, timeout: float = 30.0) -> tuple[socket.socket, bytes]:
        """Send a request head to the HTTP proxy and read its answer up to the empty line."""
        sock = socket.create_connection(("127.0.0.1", self.proxy_port), timeout)
        sock.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = sock.recv(1)
            if not piece:
                break
            head += piece
        return sock, head


@contextlib.contextmanager
def serving(handler: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server on loopback that gives each connection to `handler` in a thread; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        connections: list[socket.socket] = []

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                handler(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(10)
            for connection in connections:
                connection.close()


def echo(connection: socket.socket) -> None:
    """Send back what comes, then end."""
    while data := connection.recv(65_536):
        connection.sendall(data)


def is_reset(sock: socket.socket) -> bool:
    """Read to the end; whether it was a reset rather than an end of file."""
    try:
        while sock.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    return False


def is_refused(port: int) -> bool:
    """Connect to a forward; whether the connection is reset, at once or while reading."""
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            return is_reset(sock)
    except ConnectionResetError:
        return True


def resident_bytes(pid: int) -> int:
    """What a process holds in memory of its own (anonymous pages)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no RssAnon")
