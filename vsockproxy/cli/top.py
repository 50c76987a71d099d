"""`vsockproxy top`: what the parent does, live."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from vsockproxy.cli.admin_client import AdminError, admin_option, ask

__all__ = ("command",)

EXIT_NOT_ASKED = 2
LINES_OF_REFUSAL = 3
LOCAL_FLAGS = 3
"""In what tcgetattr gives (Python's documentation of termios)."""

QUITTING = (b"q", b"Q", b"\x03")
FURNITURE_LINES = 22
"""What is on the screen beside enclaves, streams and refusals."""


@click.command("top")
@admin_option
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two looks. Example: --interval 5",
)
@click.option("--once", is_flag=True, help="Show it once and end.")
def command(endpoint: str, interval: float, once: bool) -> None:
    """Show what the parent does, every second; q or Ctrl-C ends it.

    Exits with 2 if the parent cannot be asked at the start.
    """
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from vsockproxy.cli.status_view import draw, plain

    console = Console(highlight=False)

    def look() -> RenderableType:
        status = ask(endpoint, "/status")
        streams, refusals = _room(console.height if not once else 60, status)
        page = ask(endpoint, f"/streams?limit={streams}")
        return draw(status, page, width=console.width, refusals=refusals)

    try:
        shown = look()
    except AdminError as error:
        click.echo(f"vsockproxy: {error}", err=True)
        sys.exit(EXIT_NOT_ASKED)
    if once:
        console.print(shown)
        return
    with (
        suppress(KeyboardInterrupt),
        _keys() as keyboard,
        Live(shown, console=console, screen=True, auto_refresh=False) as live,
    ):
        while not _is_quit_within(keyboard, interval):
            try:
                live.update(look(), refresh=True)
            except AdminError as error:  # it may be restarted: wait for it
                live.update(Text(plain(error), style="bold red"), refresh=True)


def _room(lines: int, status: dict[str, Any]) -> tuple[int, int]:
    """How many streams and refusals fit on the screen."""
    left = max(6, lines - FURNITURE_LINES - len(status["enclaves"]))
    refusals = max(2, min(8, left // (2 * LINES_OF_REFUSAL)))
    return max(3, left - LINES_OF_REFUSAL * refusals), refusals


@contextmanager
def _keys() -> Iterator[int | None]:
    """Keys as they are pressed, without an echo; None where stdin is no terminal.

    Ctrl-C is a key too: as a signal it could come while the screen is changed over.
    """
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        attributes = termios.tcgetattr(descriptor)
        attributes[LOCAL_FLAGS] &= ~termios.ISIG
        termios.tcsetattr(descriptor, termios.TCSADRAIN, attributes)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _is_quit_within(keyboard: int | None, seconds: float) -> bool:
    """Wait for the next look; whether q or Ctrl-C was pressed meanwhile."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if keyboard is None:
            time.sleep(left)
        elif select.select([keyboard], [], [], left)[0]:
            pressed = os.read(keyboard, 64)
            if not pressed or pressed[:1] in QUITTING:
                return True
    return False
