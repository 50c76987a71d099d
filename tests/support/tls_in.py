"""A pair whose enclave ends TLS in front of a service, and clients of it."""

import socket
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.support.pair import Pair, Side, free_port
from vsockproxy.attestation.software_nsm import SOFTWARE_PCRS
from vsockproxy.cli.main import main
from vsockproxy.protocols.http_service import AnswerReader, ServiceAnswer

__all__ = ("PCRS", "SECONDS", "TlsIn", "ask", "client_context", "serving_tls_in", "verify_tls")

SECONDS = 60.0

PCRS = tuple(f"--pcr={index}={value.hex()}" for index, value in SOFTWARE_PCRS.items())
"""The measurements of a software module, as options."""


@dataclass(frozen=True, slots=True)
class TlsIn:
    """A pair at work.

    Args:
        pair: both sides.
        port: where clients connect.
        root: the file with the software module's root.
    """

    pair: Pair
    port: int
    root: Path

    @property
    def enclave(self) -> Side:
        """The enclave's side."""
        assert self.pair.enclave is not None
        return self.pair.enclave

    @property
    def services(self) -> int:
        """The process that makes certificates."""
        return self._process(b"services.process")

    @property
    def worker(self) -> int:
        """The enclave's only worker."""
        return self._process(b"enclave_side.worker")

    def _process(self, part: bytes) -> int:
        (pid,) = (
            each
            for each in self.enclave.workers
            if part in Path(f"/proc/{each}/cmdline").read_bytes()
        )
        return pid

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection, after its handshake."""
        plain = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        try:
            return (context or client_context()).wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            )
        except BaseException:
            plain.close()
            raise

    @property
    def certificate(self) -> bytes:
        """What is presented now, DER."""
        with self.connect() as sock:
            certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate

    def verify(self, *options: str, port: int | None = None) -> Result:
        """`vsockproxy attestation verify-tls`."""
        return verify_tls(port or self.port, self.root, *options)


def verify_tls(port: int, root: Path, *options: str) -> Result:
    """`vsockproxy attestation verify-tls`, by default with a software module's measurements."""
    roots = ["--root", str(root)] if root.exists() else []
    arguments = ["attestation", "verify-tls", f"127.0.0.1:{port}", *roots]
    return CliRunner().invoke(main, [*arguments, *(options or PCRS)])


def client_context() -> ssl.SSLContext:
    """A client that looks at no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(sock: ssl.SSLSocket, request: bytes) -> ServiceAnswer:
    """Send a request and read the answer to it, and no more."""
    sock.sendall(request)
    reader = AnswerReader("GET", 1 << 20)
    while (answer := reader.receive(sock.recv(1))) is None:
        pass
    return answer


@contextmanager
def serving_tls_in(
    to: int | str,
    tls: Mapping[str, Any] | None = None,
    *,
    service: Mapping[str, Any] | None = None,
    enclave: Mapping[str, Any] | None = None,
    device: str = "software",
) -> Iterator[TlsIn]:
    """Serve while the body runs.

    Args:
        to: the service's port, or its address.
        tls: its section `tls`.
        service: further keys of the service.
        enclave: further keys of the enclave's file.
        device: of the security module.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        root = Path(directory) / "root.pem"
        attestation = {"device": device, **({"root": str(root)} if device == "software" else {})}
        address = f"tcp://127.0.0.1:{to}" if isinstance(to, int) else to
        section = {"service": "web", "to": address, "tls": {**(tls or {})}}
        with Pair(
            "unix",
            [],
            parent={"ingress": [{"listen": f"tcp://127.0.0.1:{port}", "service": "web"}]},
            enclave={
                "attestation": attestation,
                "ingress": [{**section, **(service or {})}],
                **(enclave or {}),
            },
        ) as pair:
            yield TlsIn(pair, port, root)
