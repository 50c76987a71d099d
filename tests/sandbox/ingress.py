"""Sandboxes whose command is reached from outside."""

import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from tests.support.pair import free_port
from tests.support.program import Program, command_line

SECONDS = 30.0

QUIET = {"level": "error"}
"""Nobody reads what the sandbox writes before its end, and a pipe holds little."""


@contextmanager
def sandbox_behind(
    directory: Path, ingress: str, command: Sequence[str], listener: Mapping[str, Any]
) -> Iterator[int]:
    """A sandbox with a command, and the port outside that leads to it.

    Args:
        directory: for the files.
        ingress: of the enclave's file, as YAML.
        command: what serves.
        listener: the parent's, but for its address.
    """
    port = free_port()
    link = f"unix://{directory}/link.sock"
    parent = directory / "parent.yaml"
    content = {
        "listen": link,
        "ingress": [{"listen": f"tcp://127.0.0.1:{port}", **listener}],
        "log": QUIET,
    }
    parent.write_text(json.dumps(content))
    enclave = directory / "enclave.yaml"
    # Names are active where there is a rule for them, and the command has a network of its own.
    enclave.write_text(
        f"parent: {link}\nallowlist: [{{address: a.test, port: 443}}]\n"
        f"log: {json.dumps(QUIET)}\n{ingress}"
    )
    options = ("--config-parent", str(parent), "--config-enclave", str(enclave))
    with Program(command_line("sandbox", *options, "--", *command)):
        yield port


def ask(port: int, question: bytes, context: ssl.SSLContext | None = None) -> tuple[str, bytes]:
    """The client's address, and all of the answer; tried again until the command listens."""
    deadline = time.monotonic() + SECONDS
    while True:
        with (
            suppress(ConnectionError, ssl.SSLEOFError),
            socket.create_connection(("127.0.0.1", port), SECONDS) as plain,
            nullcontext(plain) if context is None else context.wrap_socket(plain) as sock,
        ):
            sock.sendall(question)
            answer = b""
            while piece := sock.recv(65_536):
                answer += piece
            return "{}:{}".format(*sock.getsockname()), answer
        assert time.monotonic() < deadline, "the command does not serve"
        time.sleep(0.05)
