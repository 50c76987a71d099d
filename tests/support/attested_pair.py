"""A pair whose enclave has a software module that a test can have misbehave."""

import json
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.nsm_server import module_root, nsm_socket, software_nsm
from tests.support.pair import Line, LinkKind, Pair
from vsockproxy.attestation.nsm_messages import MAX_RANDOM_BYTES
from vsockproxy.attestation.software_nsm import MODULE_ID, SOFTWARE_PCRS

PCR0 = SOFTWARE_PCRS[0].hex()
OTHER_PCR0 = "ab" * 48
INSTANCE = MODULE_ID.partition("-enc")[0]


class Module:
    """A software module.

    Args:
        pcrs: in place of its usual ones.

    Attributes:
        age: how long ago its documents were made.
        go_on: it answers once this is set, as it is at first.
        forge: makes another response of its own.
        responses: all that it gave.
    """

    def __init__(self, pcrs: Mapping[int, bytes] | None = None) -> None:
        self._nsm = software_nsm(pcrs=pcrs)
        self.age = timedelta()
        self.go_on = threading.Event()
        self.go_on.set()
        self.forge: Callable[[bytes], bytes] = lambda response: response
        self.responses: list[bytes] = []

    def respond(self, request: bytes) -> bytes:
        """The response to a request."""
        self.go_on.wait(60)
        random = secrets.token_bytes(MAX_RANDOM_BYTES)
        response = self.forge(self._nsm.answer(request, datetime.now(UTC) - self.age, random))
        self.responses.append(response)
        return response


class AttestedPair(Pair):
    """A pair whose parent reads its file again."""

    def reload(self, changes: Mapping[str, Any]) -> Line:
        """Change the parent's file, have it read, and wait for what becomes of it."""
        assert self.parent is not None
        content = {**json.loads(self.parent_config.read_text()), **changes}
        self.parent_config.write_text(json.dumps(content, indent=1))
        seen = len(self.parent.lines)
        self.parent.process.send_signal(signal.SIGHUP)
        return self.parent.wait_for(
            lambda line: line["event"] in ("reloaded", "reload_failed"), after=seen
        )

    def refusal(self, host: str, port: int) -> str:
        """What a program is told in place of a connection: status line and text."""
        sock, head = self.ask(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")
        with sock:
            body = b""
            while piece := sock.recv(4096):
                body += piece
        return (head.split(b"\r\n", 1)[0] + b"\n" + body).decode()


def write_root(path: Path) -> Path:
    """The root of the tests' modules, as the file that a parent trusts."""
    path.write_bytes(module_root().certificate.public_bytes(Encoding.PEM))
    return path


@contextmanager
def attested_pair(
    rules: list[dict[str, Any]],
    entries: list[dict[str, Any]],
    module: Module | None,
    *,
    attestation: Mapping[str, Any] | None = None,
    enclave: Mapping[str, Any] | None = None,
    is_linked: bool = True,
    kind: LinkKind = "unix",
) -> Iterator[AttestedPair]:
    """A parent with `entries`, and an enclave with one link and a module.

    Args:
        rules: allow rules of the enclave.
        entries: the parent's `enclaves`.
        module: None for an enclave without one.
        attestation: further keys of the parent's section.
        enclave: further keys of enclave.yaml.
        is_linked: whether to wait for a link.
        kind: what the link runs over; the CID on a vsock is `VSOCK_LOOPBACK_CID`.
    """
    pair = AttestedPair(kind, rules, parent_rules=[])
    directory = pair.path
    root = write_root(directory / "root.pem")
    content = json.loads(pair.parent_config.read_text())
    content |= {"enclaves": entries, "attestation": {"root": str(root), **(attestation or {})}}
    pair.parent_config.write_text(json.dumps(content, indent=1))
    content = json.loads(pair.enclave_config.read_text())
    content |= {
        "require_tls": False,
        "links": 1,
        "limits": {"link_wait": 1},
        "attestation": {"device": str(directory / "nsm")},
    }
    pair.enclave_config.write_text(json.dumps({**content, **(enclave or {})}, indent=1))
    try:
        if module is None:
            pair.start_parent()
            pair.start_enclave(links=is_linked)
            yield pair
            return
        with nsm_socket(directory / "nsm", module.respond):
            pair.start_parent()
            pair.start_enclave(links=is_linked)
            yield pair
    except BaseException:
        for side in (pair.parent, pair.enclave):
            if side is not None:
                print(f"the {side.name} said last:", *side.raw[-20:], sep="\n")
        raise
    finally:
        if module is not None:
            module.go_on.set()
        pair.close()
