"""A pair whose enclave has a stream socket, and everything that programs under the shim meet."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority
from tests.support.dns_server import DnsServer, Silent
from tests.support.full_backlog import full_backlog
from tests.support.pair import Pair, echo, free_port, serving
from tests.support.tls_origin import Origin

PORT = 443
OTHER_PORT = 444
"""Listed for no host."""

ENCLAVE_PORT = 445
"""Of echo.test, listed by the enclave alone."""

LITERAL_V4 = "10.9.8.7"
LITERAL_V6 = "fd00::5"
TLS_HOSTS = ("tls.test", "kms.test")
WORD = "held"


def rule(host: str, **more: Any) -> dict[str, Any]:
    """An allow rule for `PORT`."""
    return {"address": host, "port": PORT, "private": True, "require_tls": False, **more}


def hold(connection: socket.socket) -> None:
    """Say a word, and stay until the other end goes."""
    connection.sendall(WORD.encode())
    with contextlib.suppress(ConnectionError):
        while connection.recv(65_536):
            pass


def count_to_the_end(connection: socket.socket) -> None:
    """Read to the end of file, and say then how much it was."""
    count = 0
    while data := connection.recv(65_536):
        count += len(data)
    connection.sendall(f"{count} bytes".encode())


def reset_after_a_word(connection: socket.socket) -> None:
    """Say a word that is asked for, then reset."""
    connection.sendall(WORD.encode())
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass(frozen=True, slots=True)
class Rig:
    """The pair, where its stream socket is, and the file of whom to trust."""

    pair: Pair
    path: str
    authority: Path


@contextmanager
def rig(
    directory: Path, *, connect_seconds: float = 0.3, link_wait_seconds: float = 10.0
) -> Iterator[Rig]:
    """A running rig; its hosts are those of the rules below.

    Args:
        directory: an empty one, for the stream socket and the certificates.
        connect_seconds: what the parent gives silent.test.
        link_wait_seconds: what the enclave gives a parent that is away.
    """
    authority = Authority(directory)
    with ExitStack() as stack:
        dns = stack.enter_context(DnsServer())
        dns.set("unanswered.test", Silent())
        origin = stack.enter_context(Origin(authority.context(*TLS_HOSTS)))

        def served(handler: Any) -> str:
            return f"127.0.0.1:{stack.enter_context(serving(handler))}"

        echoed, held = served(echo), served(hold)
        silent = f"127.0.0.1:{stack.enter_context(full_backlog())}"
        both = [
            *(rule(host, dial=echoed) for host in ("echo.test", LITERAL_V4, LITERAL_V6)),
            *(rule(host, dial=origin.address, require_tls=True) for host in TLS_HOSTS),
            rule("must-be-tls.test", dial=echoed, require_tls=True),
            rule("hold.test", dial=held),
            rule("counts.test", dial=served(count_to_the_end)),
            rule("resets.test", dial=served(reset_after_a_word)),
            rule("denied.test", dial=echoed),
            rule("guarded.test", private=False),
            rule("missing.test"),
            rule("unanswered.test"),
            rule("closed.test", dial=f"127.0.0.1:{free_port()}"),
            rule("silent.test", dial=silent),
        ]
        streams = directory / "streams.sock"
        parent = {
            "limits": {"connect": connect_seconds},
            "resolver": {
                "servers": [dns.address],
                "timeout": 1,
                "hosts": {"guarded.test": ["10.1.2.3"]},
            },
        }
        enclave = {
            "shim": {"streams": str(streams), "http_proxy": None},
            "denylist": [{"address": "denied.test"}],
            "limits": {"link_wait": link_wait_seconds},
        }
        pair = Pair(
            "unix",
            [
                *both,
                {"address": "echo.test", "port": ENCLAVE_PORT},
                rule("enclave-only.test"),
                rule("203.0.113.9"),
            ],
            parent_rules=both,
            parent=parent,
            enclave=enclave,
        )
        yield Rig(stack.enter_context(pair), str(streams), authority.file)
