"""A page of a unix socket in headless Chromium, in a network namespace of its own.

    unshare --net python -m tests.support.browser SOCKET CHROMIUM ARGUMENT...

brings up the loopback device, passes connections to 127.0.0.1:PORT on to SOCKET, and runs Chromium
with that address as its last argument. Outside a namespace it would look for its maker.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser")
SECONDS = 120.0
NO_SOCKET = "-"

_WAITS = "--virtual-time-budget=4000"
"""For what the page fetches, in milliseconds."""

ALWAYS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


@dataclass(frozen=True)
class Seen:
    """What came of a visit."""

    output: str
    console: list[str]
    """What the page wrote to its console, or the browser about it."""


def chromium() -> str | None:
    """The program, if there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def visit(admin_socket: Path | None, *arguments: str) -> Seen:
    """Show the page at / of a unix socket, or what the last argument says."""
    program = chromium()
    assert program is not None
    prefix = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    with tempfile.TemporaryDirectory(prefix="vsockproxy-browser-") as profile:
        done = subprocess.run(
            [
                *(*prefix, sys.executable, "-m", __name__, str(admin_socket or NO_SOCKET), program),
                *(*ALWAYS, f"--user-data-dir={profile}", *arguments),
            ],
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "HOME": profile},
        )
    errors = done.stderr.decode(errors="replace")
    assert done.returncode == 0, errors
    console = [line for line in errors.splitlines() if "CONSOLE" in line]
    return Seen(done.stdout.decode(errors="replace"), console)


def shown_text(admin_socket: Path) -> Seen:
    """The page's document, as it is after a while."""
    return visit(admin_socket, "--dump-dom", _WAITS)


def picture(
    admin_socket: Path,
    file: Path,
    *,
    size: tuple[int, int],
    is_dark: bool = False,
) -> Seen:
    """A picture of the page, as a PNG file."""
    return visit(
        admin_socket,
        f"--screenshot={file}",
        f"--window-size={size[0]},{size[1]}",
        "--force-device-scale-factor=1",
        _WAITS,
        *(("--blink-settings=preferredColorScheme=0",) if is_dark else ()),
    )


@contextlib.contextmanager
def _relayed(path: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, path), daemon=True).start()
        yield listener.getsockname()[1]


def _accept(listener: socket.socket, path: str) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        other = socket.socket(socket.AF_UNIX)
        other.connect(path)
        for source, target in ((connection, other), (other, connection)):
            threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def picture_of_file(
    drawing: Path, file: Path, *, size: tuple[int, int], scale: float = 1.0
) -> Seen:
    """A picture of an SVG file, as a PNG file."""
    return visit(
        None,
        f"--screenshot={file}",
        f"--window-size={size[0]},{size[1]}",
        f"--force-device-scale-factor={scale}",
        drawing.as_uri(),
    )


def main() -> int:
    path, *command = sys.argv[1:]
    if path == NO_SOCKET:
        return subprocess.run(command, check=False).returncode
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with _relayed(path) as port:
        return subprocess.run([*command, f"http://127.0.0.1:{port}/"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
