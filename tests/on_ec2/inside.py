"""The program in the enclave: plain sockets, the standard library, one report of what it found.

python3 -m tests.on_ec2.inside HOST PORT LINKS BYTES
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.on_ec2.origin import PIECE_BYTES, pattern

STREAMS = 8
SIZES = (1, 32_755, 32_756, 32_757, 32 * 1024, 32 * 1024 + 1, 64 * 1024, 1 << 20)
"""Around what a guest kernel may corrupt in one packet, and around the session's largest frame."""
WAIT_SECONDS = 300


def connect(host: str, port: int) -> socket.socket:
    """A connection, by name, as any program makes one."""
    return socket.create_connection((host, port), WAIT_SECONDS)


def receive(host: str, port: int, count: int) -> bool:
    """Whether `count` bytes arrive as they are."""
    with connect(host, port) as sock, sock.makefile("rb") as data:
        sock.sendall(f"SOURCE {count}\n".encode())
        offset = 0
        while piece := data.read(PIECE_BYTES):
            if piece != pattern(offset, len(piece)):
                return False
            offset += len(piece)
        return offset == count


def send(host: str, port: int, count: int) -> bool:
    """Whether `count` bytes leave as they are."""
    digest = hashlib.sha256()
    with connect(host, port) as sock:
        sock.sendall(f"SINK {count}\n".encode())
        for offset in range(0, count, PIECE_BYTES):
            data = pattern(offset, min(PIECE_BYTES, count - offset))
            digest.update(data)
            sock.sendall(data)
        return sock.makefile("rb").read() == digest.hexdigest().encode()


def echo(host: str, port: int, count: int) -> bool:
    """Whether `count` bytes in one call come back as they went."""
    data = pattern(0, count)
    with connect(host, port) as sock:
        sock.sendall(f"ECHO {count}\n".encode() + data)
        return sock.makefile("rb").read(count) == data


def is_refused() -> bool:
    """Whether a name that nobody listed has no address."""
    try:
        connect("unlisted.test", 443).close()
    except socket.gaierror:
        return True
    return False


def rate(host: str, port: int, count: int) -> float:
    """MiB/s that STREAMS connections take in together."""
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        taken = list(pool.map(lambda _: drain(host, port, count // STREAMS), range(STREAMS)))
    return sum(taken) / (time.monotonic() - began) / (1 << 20)


def drain(host: str, port: int, count: int) -> int:
    """How many bytes came, unread."""
    buffer = bytearray(PIECE_BYTES)
    taken = 0
    with connect(host, port) as sock:
        sock.sendall(f"SOURCE {count}\n".encode())
        while received := sock.recv_into(buffer):
            taken += received
    return taken


def answer(check: Callable[[], bool]) -> str:
    """`pass`, or what went wrong."""
    try:
        return "pass" if check() else "wrong bytes, or none"
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def machine() -> dict[str, str]:
    """What this machine is."""
    current = Path("/sys/class/misc/hw_random/rng_current")
    return {
        "kernel": os.uname().release,
        "nsm": "present" if Path("/dev/nsm").exists() else "absent",
        "rng_current": current.read_text().strip() if current.exists() else "absent",
    }


def attestation() -> dict[str, str]:
    """A document of the module, and the nonce that stands in it; or why there is none."""
    nonce = os.urandom(32).hex()
    found = shutil.which("vsockproxy")
    command = [found] if found else [sys.executable, "-m", "vsockproxy"]
    done = subprocess.run(
        [*command, "attestation", "request", "--nonce", nonce],
        capture_output=True,
        timeout=WAIT_SECONDS,
    )
    return {"nonce": nonce, "document": done.stdout.hex(), "said": done.stderr.decode()[-1000:]}


def main() -> None:
    """Check, and report to the origin."""
    host, port, links, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    checks = {
        f"{count} bytes in, each compared": answer(lambda: receive(host, port, count)),
        f"{count} bytes out, by SHA-256": answer(lambda: send(host, port, count)),
        "a name that is not listed has no address": answer(is_refused),
    }
    for size in SIZES:
        name = f"{size} bytes in one call and back"
        checks[name] = answer(functools.partial(echo, host, port, size))
    report = {
        "links": links,
        "checks": checks,
        "machine": machine(),
        "attestation": attestation(),
        "mebibytes_per_second": round(rate(host, port, count), 1),
    }
    with connect(host, port) as sock:
        sock.sendall(b"REPORT\n" + json.dumps(report).encode())


if __name__ == "__main__":
    main()
