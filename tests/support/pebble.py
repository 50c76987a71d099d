"""Pebble, Let's Encrypt's small ACME server for tests, on loopback (Debian: pebble)."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.dns_server import Addresses, DnsServer
from tests.support.pair import free_port

PEBBLE = shutil.which("pebble")
NO_PEBBLE = "needs pebble (Debian: pebble)"

HOST = "pebble.test"
"""What its certificate and its URLs say; a resolver has to know it as 127.0.0.1."""

START_SECONDS = 30.0


@dataclass(slots=True)
class Pebble:
    """The server; made by `pebble`.

    Args:
        directory: the URL of it.
        port: where it listens.
        ca: a file with the root of its own certificate, not of those that it issues.
        dns: what it resolves names with.
    """

    directory: str
    port: int
    ca: Path
    dns: DnsServer
    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, words: str, *, seconds: float = 60.0) -> None:
        """Wait until a line of its log holds `words`."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not any(words in line for line in self.lines):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no {words!r} in:\n" + "\n".join(self.lines))
                self.changed.wait(left)


@contextlib.contextmanager
def pebble(
    path: Path,
    names: Mapping[str, str],
    http_port: int,
    *,
    port: int | None = None,
    authority: Authority | None = None,
    valid_seconds: int = 3600,
    refused_nonces: int = 0,
) -> Iterator[Pebble]:
    """Run it.

    Args:
        path: an empty directory for its files.
        names: those that it can resolve, and their addresses.
        http_port: what it connects to in place of port 80.
        port: where it listens; a free one by default.
        authority: issues its own certificate; one in `path` by default.
        valid_seconds: how long its certificates hold.
        refused_nonces: of good ones, in percent.
    """
    assert PEBBLE is not None
    authority = authority or Authority(path)
    certificate = authority.issue(HOST)
    port = free_port() if port is None else port
    config = path / "pebble.json"
    config.write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": f"127.0.0.1:{port}",
                    "managementListenAddress": "",
                    "certificate": str(certificate),
                    "privateKey": str(certificate),
                    "httpPort": http_port,
                    "tlsPort": free_port(),
                    "certificateValidityPeriod": valid_seconds,
                }
            }
        )
    )
    with DnsServer() as dns:
        for name, address in names.items():
            dns.set(name, Addresses(address))
        process = subprocess.Popen(
            [PEBBLE, "-config", str(config), "-dnsserver", dns.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "PEBBLE_VA_NOSLEEP": "1",
                "PEBBLE_WFE_NONCEREJECT": str(refused_nonces),
                "PEBBLE_AUTHZREUSE": "0",
            },
        )
        server = Pebble(f"https://{HOST}:{port}/dir", port, authority.file, dns)

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                with server.changed:
                    server.lines.append(line.rstrip())
                    server.changed.notify_all()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            server.wait_for("ACME directory available", seconds=START_SECONDS)
            yield server
        finally:
            process.kill()
            process.wait(20)
            reader.join(20)
            assert process.stdout is not None
            process.stdout.close()
