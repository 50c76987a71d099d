"""The parent's supervisor on trio: it accepts connections, and workers serve them.

SIGHUP has it read its file again, SIGTERM and SIGINT have it drain, a second one cuts.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

import trio

from vsockproxy.config.document import Document
from vsockproxy.config.model import ParentConfig
from vsockproxy.control.accepting import Assignment, accept_connections
from vsockproxy.control.file_reading import FileNotValid, read_checked_file
from vsockproxy.control.listeners import ListenerSet, NamedListener, WantedListener
from vsockproxy.control.notify import NotifySettings
from vsockproxy.control.notifying import Notifier
from vsockproxy.control.services import Service, announce_ready, supervision
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.listening import ListenError
from vsockproxy.log import Log
from vsockproxy.metrics import RELOADS
from vsockproxy.policy import may_connect

__all__ = ("ParentService", "serve_parent")

MOST_LINES_LOGGED: Final = 20
"""Faults of a file that are logged; `vsockproxy check` shows them all."""

ARRIVAL_SECONDS: Final = 0.5
"""How long a drain still takes the connections of dedicated streams that were just opened; the
workers close every other that comes meanwhile."""

FIXED_KEYS: Final = ("workers", "admin", "credentials.imds", "log.format")
"""What is as it was at the start until a restart, whatever a reload brings."""


@dataclass(frozen=True, slots=True)
class ParentService:
    """What the parent's supervisor needs beyond what both sides' need.

    Args:
        listeners: all listening sockets; whoever made them closes them.
        wanted: says which listeners a document wants.
        file: what a reload reads; None if there is none.
        notify: what systemd wants to be told.
    """

    listeners: ListenerSet
    wanted: Callable[[Document], Iterable[WantedListener]]
    file: str | None
    notify: NotifySettings


def serve_parent(service: Service, parent: ParentService) -> int:
    """Accept connections for the workers until SIGTERM or SIGINT; the exit code."""
    return trio.run(_serve_parent, service, parent)


async def _serve_parent(service: Service, parent: ParentService) -> int:
    numbers = [signal.SIGTERM, signal.SIGINT]
    if parent.file is not None:
        numbers.append(signal.SIGHUP)
    with trio.open_signal_receiver(*numbers) as signals:
        async with (
            supervision(service, passes_listeners=False) as (supervisor, log),
            trio.open_nursery() as nursery,
        ):
            running = _RunningParent(service, parent, supervisor, log, nursery)
            try:
                await running.live(signals)
            finally:
                running.close()
            nursery.cancel_scope.cancel()
    return 0


class _RunningParent:
    """The parent while it runs."""

    def __init__(
        self,
        service: Service,
        parent: ParentService,
        supervisor: Supervisor,
        log: Log,
        nursery: trio.Nursery,
    ) -> None:
        self._service = service
        self._parent = parent
        self._supervisor = supervisor
        self._log = log
        self._nursery = nursery
        self._document = service.document
        self._assignment = Assignment(supervisor.workers)
        self._accepting: list[trio.CancelScope] = []
        self._reload_wanted = trio.Event()
        self._drains_until: float | None = None
        self._last_reload = ""
        self._notifier = Notifier(
            parent.notify,
            describe=self._describe,
            is_alive=lambda: supervisor.is_alive,
            log=log,
        )

    def close(self) -> None:
        """Tell nobody anything any more."""
        self._notifier.close()

    async def live(self, signals: AsyncIterator[int]) -> None:
        """Serve, reload and drain as signals say."""
        self._start_accepting()
        self._nursery.start_soon(self._notifier.run)
        async with trio.open_nursery() as serving:
            serving.start_soon(self._announce)
            serving.start_soon(self._reload_when_asked)
            number = await self._next_ending_signal(signals)
            serving.cancel_scope.cancel()
        await self._drain(number, signals)

    async def _next_ending_signal(self, signals: AsyncIterator[int]) -> int:
        while (number := await anext(signals)) == signal.SIGHUP:
            self._reload_wanted.set()
        return number

    async def _announce(self) -> None:
        await announce_ready(self._supervisor, self._parent.listeners.listeners, self._log)
        await self._notifier.ready()

    def _describe(self) -> str:
        """The status, as one line for people."""
        now = self._supervisor.status
        parts = [f"{now.serving} of {now.workers} workers serve {now.enclaves} enclaves"]
        if self._drains_until is not None:
            parts = [f"draining: {now.streams} streams are open"]
        parts += [f"worker {index} dies again and again" for index in now.crash_looping]
        if self._last_reload:
            parts.append(self._last_reload)
        return "; ".join(parts)

    # ---------------------------------------------------------------- accepting

    def _start_accepting(self) -> None:
        for named in self._parent.listeners.listeners:
            scope = trio.CancelScope()
            self._accepting.append(scope)
            self._nursery.start_soon(self._accept, named, scope)

    def _stop_accepting(self) -> None:
        for scope in self._accepting:
            scope.cancel()
        self._accepting.clear()

    async def _accept(self, named: NamedListener, scope: trio.CancelScope) -> None:
        with scope:
            await accept_connections(
                named.listener,
                named.name,
                supervisor=self._supervisor,
                assignment=self._assignment,
                may_connect=partial(may_connect, self._document),
                log=self._log,
            )

    # ---------------------------------------------------------------- reloading

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted = trio.Event()
            is_up = self._supervisor.all_ready.is_set()  # else the next word to systemd is `ready`
            if is_up:
                await self._notifier.reloading()
            began_at = trio.current_time()
            stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            try:
                fields = await self._reload()
            except (FileNotValid, ListenError) as error:
                lines = error.lines if isinstance(error, FileNotValid) else (str(error),)
                self._last_reload = f"the reload of {stamp} failed: {lines[0]}"
                for line in lines[:MOST_LINES_LOGGED]:
                    self._log.error("config_error", text=line)
                seconds = round(trio.current_time() - began_at, 3)
                self._log.activity.counters.add(RELOADS, ("refused",))
                self._log.error(
                    "reload_failed",
                    file=self._parent.file,
                    errors=len(lines),
                    duration=seconds,
                    text=f"the former file holds: {lines[0]}",
                )
            else:
                self._last_reload = f"reloaded at {stamp}"
                seconds = round(trio.current_time() - began_at, 3)
                self._log.activity.counters.add(RELOADS, ("applied",))
                self._log.info("reloaded", file=self._parent.file, duration=seconds, **fields)
                self._log.threshold = _config(self._document).log.level
            if is_up:
                await self._notifier.ready()

    async def _reload(self) -> dict[str, object]:
        """Read the file again and change over; what there is to say of it.

        Raises:
            FileNotValid: it is not valid; nothing has changed.
            ListenError: a new listener cannot be bound; nothing has changed.
        """
        assert self._parent.file is not None  # SIGHUP is not taken without one
        checked = await read_checked_file(self._parent.file, "parent")
        try:
            change = self._parent.listeners.prepare(self._parent.wanted(checked.document))
        except BaseException:
            os.close(checked.descriptor)
            raise
        former, self._document = self._document, checked.document
        config = _config(checked.document)
        # Nothing else runs from here until the supervisor waits for its workers; from then on each
        # connection meets the new file everywhere.
        self._stop_accepting()
        self._parent.listeners.apply(change)
        self._start_accepting()
        result = await self._supervisor.reload(
            checked.descriptor, self._service.summaries(change.listeners), config.log.level
        )
        changed = [
            key for key in FIXED_KEYS if _value(former, key) != _value(checked.document, key)
        ]
        return {
            "allowlist": len(config.allowlist),
            "denylist": len(config.denylist),
            "enclaves": len(config.enclaves),
            "listeners_opened": len(change.opened),
            "listeners_closed": len(change.closing),
            "ended_streams": result.ended_streams,
            "replaced_workers": len(result.replaced_workers),
            "text": f"only a restart changes {', '.join(changed)}" if changed else None,
        }

    # ----------------------------------------------------------------- draining

    async def _drain(self, number: int, signals: AsyncIterator[int]) -> None:
        """Let open streams end, then cut what is left; another signal cuts at once."""
        config = _config(self._document)
        name = signal.Signals(number).name
        self._log.info("stopping", signal=name, drain=config.drain)
        self._stop_accepting()
        self._parent.listeners.close(all_but="link")
        self._start_accepting()
        self._drains_until = trio.current_time() + config.drain
        self._supervisor.stop(config.drain)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cut_when_asked, signals)
            nursery.start_soon(self._close_listeners)
            nursery.start_soon(self._say_stopping)
            await self._supervisor.has_ended.wait()
            nursery.cancel_scope.cancel()

    async def _close_listeners(self) -> None:
        """Refuse whoever connects, once the connections of open dedicated streams are here."""
        await trio.sleep(ARRIVAL_SECONDS)
        self._stop_accepting()
        self._parent.listeners.close()

    async def _cut_when_asked(self, signals: AsyncIterator[int]) -> None:
        number = await self._next_ending_signal(signals)
        self._log.warning("cutting", signal=signal.Signals(number).name)
        self._supervisor.stop(0)

    async def _say_stopping(self) -> None:
        await self._notifier.stopping()
        await self._notifier.extend()


def _config(document: Document) -> ParentConfig:
    config = document.config
    assert isinstance(config, ParentConfig)  # that kind was asked for
    return config


def _value(document: Document, key: str) -> object:
    """The value of a key, as `log.format`; None without its section."""
    value: object = document.config
    for name in key.split("."):
        value = getattr(value, name) if value is not None else None
    return value
