"""Keeps systemd informed of a supervisor: ready, status, reloads, watchdog, the end."""

import time
from collections.abc import Callable
from typing import Final

import trio

from vsockproxy.control import notify
from vsockproxy.control.logs import EventLog
from vsockproxy.control.notify import NotifySettings, NotifySocket

__all__ = ("Notifier",)

LOOK_SECONDS: Final = 1.0
"""How often the status is looked at; it is sent when it has changed."""

EXTENSION_SECONDS: Final = 15.0
"""How long a drain asks systemd to wait for, each time it says so."""

SEND_SECONDS: Final = 5.0
"""How long a message waits for a systemd that does not read."""


class Notifier:
    """Tells systemd, where it wants to know; each method returns at once if it does not.

    Args:
        settings: what it wants to know.
        describe: the status, as one line for people.
        is_alive: whether the watchdog may be fed.
        log: is told once, if systemd cannot be told.
    """

    def __init__(
        self,
        settings: NotifySettings,
        *,
        describe: Callable[[], str],
        is_alive: Callable[[], bool],
        log: EventLog,
    ) -> None:
        self._settings = settings
        self._describe = describe
        self._is_alive = is_alive
        self._log = log
        self._socket: NotifySocket | None = None
        self._told = ""
        if settings.address is not None:
            try:
                self._socket = NotifySocket(settings.address)
            except OSError as error:
                self._give_up(error)

    async def run(self) -> None:
        """Tell of changes of the status, and feed the watchdog, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_changes)
            if self._settings.watchdog_seconds is not None:
                nursery.start_soon(self._feed, self._settings.watchdog_seconds / 2)

    async def ready(self) -> None:
        """Everything serves; or a reload is over, whatever became of it."""
        self._told = self._describe()
        await self._send(notify.ready(self._told))

    async def reloading(self) -> None:
        """A reload begins."""
        self._told = "reloading"
        await self._send(notify.reloading(time.monotonic_ns() // 1000, self._told))

    async def stopping(self) -> None:
        """The end begins."""
        self._told = self._describe()
        await self._send(notify.STOPPING + b"\n" + notify.status(self._told))

    async def extend(self) -> None:
        """Ask for time, again and again, until cancelled."""
        while True:
            await self._send(notify.extend_timeout(EXTENSION_SECONDS))
            await trio.sleep(EXTENSION_SECONDS / 3)

    def close(self) -> None:
        """Tell nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _tell_changes(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            text = self._describe()
            if self._told and text != self._told:  # the first word is `ready`
                self._told = text
                await self._send(notify.status(text))

    async def _feed(self, interval_seconds: float) -> None:
        while True:
            if self._is_alive():
                await self._send(notify.WATCHDOG)
            await trio.sleep(interval_seconds)

    async def _send(self, message: bytes) -> None:
        with trio.move_on_after(SEND_SECONDS):
            while self._socket is not None:
                try:
                    self._socket.send(message)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                except OSError as error:
                    self._give_up(error)
                else:
                    return

    def _give_up(self, error: OSError) -> None:
        self.close()
        fields: dict[str, object] = {"socket": self._settings.address, "text": str(error)}
        self._log.write("warning", "notify_failed", fields)
