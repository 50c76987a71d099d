"""Forwards with `tls`: a plain program, the enclave's own TLS, and a server that speaks it."""

import base64
import hashlib
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import Authority
from tests.support.pair import Pair, free_port
from tests.support.tls_servers import tls_echo, tls_serving
from tests.support.traffic import MEBIBYTE, Pattern, receive_all, start

SECONDS = 60.0
HANDSHAKE_SECONDS = 1.0

Carrier = Literal["shared", "dedicated"]
CARRIERS: tuple[Carrier, ...] = ("shared", "dedicated")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def server_context(authority: Authority, *names: str, **how: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue(*names, **how))
    return context


def pin_of(pem: Path) -> str:
    """What `pin_spki` has to say for a certificate, worked out by another library."""
    key = x509.load_pem_x509_certificate(pem.read_bytes()).public_key()
    info = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(info).digest()).decode()


class Out:
    """A pair with one forward for each destination.

    Args:
        destinations: a name, the port that stands for it, what `tls` says, and further keys of the
            forward.
        more: for the pair.
    """

    def __init__(
        self,
        destinations: Sequence[tuple[str, int, object, dict[str, Any]]],
        **more: Any,
    ) -> None:
        self.ports = [free_port() for _ in destinations]
        rules = {
            name: {"address": name, "port": 443, "private": True, "dial": f"127.0.0.1:{port}"}
            for name, port, _, _ in destinations
        }
        own = [{key: rule[key] for key in ("address", "port")} for rule in rules.values()]
        self.pair = Pair(
            "unix",
            own,
            parent_rules=list(rules.values()),
            enclave={
                "forwards": [
                    {
                        "listen": f"tcp://127.0.0.1:{port}",
                        "to": f"{name}:443",
                        "tls": tls,
                        **keys,
                    }
                    for port, (name, _, tls, keys) in zip(self.ports, destinations, strict=True)
                ],
                "limits": {"handshake": HANDSHAKE_SECONDS},
            },
            **more,
        )

    def __enter__(self) -> "Out":
        self.pair.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.pair.__exit__(*exception)

    def connect(self, index: int = 0) -> socket.socket:
        """A plain connection to a forward."""
        sock = socket.create_connection(("127.0.0.1", self.ports[index]), SECONDS)
        sock.settimeout(SECONDS)
        return sock

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """A line of the enclave's log."""
        assert self.pair.enclave is not None
        return self.pair.enclave.wait_for_event(event, **fields)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_plain_program_talks_to_a_tls_server(authority: Authority, carrier: Carrier) -> None:
    context = server_context(authority, "origin.test")
    with (
        tls_serving(context, tls_echo) as port,
        Out([("origin.test", port, {"ca": str(authority.file)}, {"carrier": carrier})]) as out,
    ):
        pattern = Pattern(1)
        with out.connect() as sock:
            sent = start(lambda: pattern.send(sock, 32 * MEBIBYTE))
            assert receive_all(sock) == (32 * MEBIBYTE, sent.result(SECONDS))
        line = out.wait_for("decision", host="origin.test")
        assert (line["allowed"], line["reason"], line["way"]) == (True, "listed", "forward")
        assert out.wait_for("close", host="origin.test")["ended"] == "finished"
