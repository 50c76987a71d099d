"""The command `vsock-proxy` as a process, on a real vsock or on a unix socket in its place.

    python -m tests.support.aws_proxy SURROUNDINGS ARG...

is `vsock-proxy ARG...`; SURROUNDINGS is a JSON object with what the command line cannot say:
`listen`, an endpoint in place of LOCAL_PORT, and `resolver`, the section of parent.yaml.
"""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.support.pair import VSOCK_LOOPBACK_CID, LinkKind, free_port
from tests.support.program import DEADLINE_SECONDS, Program
from vsockproxy.addresses import parse_endpoint
from vsockproxy.cli import aws
from vsockproxy.config.model import Resolver
from vsockproxy.config.scalars import decode_scalar

Address = tuple[int, int] | str
"""What a program connects to: CID and port, or the path of a unix socket."""

READ_BYTES = 65_536


class AwsProxy(Program):
    """A running `vsock-proxy`, serving.

    Args:
        kind: what programs reach it by.
        directory: for its files.
        listed: the entries of its allowlist.
        to: REMOTE_ADDR and REMOTE_PORT.
        options: further words of its command line.
        resolver: the section of parent.yaml.
        cid: of the programs that connect to the unix socket.
        level: RUST_LOG.
    """

    def __init__(
        self,
        kind: LinkKind,
        directory: Path,
        listed: list[tuple[str, int]],
        to: tuple[str, int],
        *options: str,
        resolver: Mapping[str, Any] | None = None,
        cid: int = 16,
        level: str = "info",
    ) -> None:
        self.address: Address
        surroundings: dict[str, Any] = {"resolver": resolver or {}}
        port = 20_000 + free_port() % 20_000
        if kind == "unix":
            self.address = str(directory / "proxy.sock")
            surroundings["listen"] = f"unix://{self.address}?cid={cid}"
        else:
            self.address = (VSOCK_LOOPBACK_CID, port)
        self.file = directory / "vsock-proxy.yaml"
        self.file.write_text(allowlist(listed))
        self.arguments = [*options, "--config", str(self.file), str(port), to[0], str(to[1])]
        program = [sys.executable, "-m", "tests.support.aws_proxy", json.dumps(surroundings)]
        super().__init__([*program, *self.arguments], {"RUST_LOG": level})
        try:
            self.event("ready")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def event(self, name: str, **fields: object) -> dict[str, Any]:
        """The first line of an event with the given fields."""
        return self.events(name, 1, **fields)[0]

    def events(self, name: str, count: int, **fields: object) -> list[dict[str, Any]]:
        """The first `count` lines of an event with the given fields."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        wanted = {"event": name, **fields}
        while True:
            lines = [json.loads(line) for line in self.lines]
            found = [line for line in lines if wanted.items() <= line.items()]
            if len(found) >= count:
                return found[:count]
            if not self._read(deadline):
                raise AssertionError(f"no {count} lines with {wanted} in {self.lines}")

    def connect(self) -> socket.socket:
        """A connection, as a program makes it that knows nothing but CID and port."""
        return connect(self.address)


def allowlist(listed: list[tuple[str, int]]) -> str:
    """The text of AWS's file."""
    entries = [f'- {{address: "{address}", port: {port}}}' for address, port in listed]
    return "\n".join(["allowlist:", *entries, ""])


def connect(address: Address) -> socket.socket:
    """Connect in the family that `address` is of."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_VSOCK
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(DEADLINE_SECONDS)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Read until the other end has finished."""
    data = b""
    while piece := sock.recv(READ_BYTES):
        data += piece
    return data


def is_closed(sock: socket.socket) -> bool:
    """Wait for the other end to close without a byte, as it does on a refusal."""
    try:
        return not sock.recv(1)
    except ConnectionResetError:
        return True


def is_echoed(address: Address) -> bool:
    """Connect to an echo; whether a word comes back."""
    with connect(address) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(b"there?")
        return sock.recv(6) == b"there?"
    return False


def main() -> None:
    surroundings = json.loads(sys.argv[1])
    listen = surroundings.get("listen")
    aws.main(
        sys.argv[2:],
        obj=aws.Surroundings(
            listen=parse_endpoint(listen) if listen else None,
            resolver=msgspec.convert(surroundings["resolver"], Resolver, dec_hook=decode_scalar),
        ),
    )


if __name__ == "__main__":
    main()
