"""The parent's admin endpoint: is it well, what does it do, and what does it refuse.

A process of its own, which only reads. Who may connect is who may open its unix socket, or whoever
is on this machine where it listens on TCP; nothing can be changed through it, and no key or payload
is in it.
"""

import json
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import trio

from parent_side.services.admin_requests import PATHS, AdminRequest, read_admin_request
from parent_side.services.exposition import expose
from parent_side.services.observed import Observed
from parent_side.services.page import PAGE, PAGE_HEADERS
from parent_side.services.stream_lists import StreamLists
from vsockproxy import __version__
from vsockproxy.control.service_process import ServiceProcess, run_service
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_service import ServiceAnswer, ServiceRequest
from vsockproxy.services.http_server import serve_http
from vsockproxy.worker_messages import (
    Message,
    MessageError,
    StreamsListed,
    SupervisionChanged,
    WorkerStatistics,
)
from vsockproxy.worker_reports import Report, Supervision, read_report

__all__ = ("AdminEndpoint", "main")

COMPLETE_SECONDS: Final = 2.5
"""How long metrics wait after the start until every worker has reported: totals that are too small
would look like a restart."""

_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


class AdminEndpoint:
    """Answers requests from what has been heard of the supervisor.

    Args:
        process: this process.
        clock: seconds, only growing.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        process: ServiceProcess,
        clock: Callable[[], float] = trio.current_time,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._process = process
        self._clock = clock
        self._wall_clock = wall_clock
        self._observed = Observed()
        self._heard = trio.Event()
        """Set when something is new, and replaced by a fresh one then."""
        self._lists = StreamLists(process.say)
        self._paths: dict[str, Callable[[AdminRequest], Awaitable[ServiceAnswer]]] = {
            "/": self._page,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/metrics": self._metrics,
            "/status": self._status,
            "/streams": self._streams,
        }
        assert set(self._paths) == set(PATHS)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen_to_supervisor)
            nursery.start_soon(self._keep_history)
            for summary, listener in self._process.listeners:
                is_tcp = summary.endpoint.startswith("tcp://")
                answering = partial(self.answer, is_tcp=is_tcp)
                nursery.start_soon(serve_http, listener, answering, self._process.log)

    async def answer(self, request: ServiceRequest, *, is_tcp: bool) -> ServiceAnswer:
        """Answer one request.

        Args:
            request: as it came.
            is_tcp: whether it came over TCP, so that a browser may have been led here.
        """
        try:
            read = read_admin_request(request, is_tcp=is_tcp)
            answer = await self._paths[read.path](read)
        except HttpRequestError as error:
            answer = _text(error.status, error.text)
            if error.status == 405:
                answer = _with_headers(answer, (("Allow", "GET, HEAD"),))
        return _with_headers(answer, _HEADERS)

    # -------------------------------------------------------------------- hearing

    async def _listen_to_supervisor(self) -> None:
        async for message, descriptors in self._process.inbox:
            try:
                self._take(message, descriptors)
            except (MessageError, ValueError) as error:
                self._process.log.warning("report_broken", text=str(error))
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _take(self, message: Message, descriptors: tuple[int, ...]) -> None:
        now = self._clock()
        match message:
            case SupervisionChanged():
                self._observed.supervised(read_report(descriptors[0], Supervision), now)
            case WorkerStatistics():
                report = read_report(descriptors[0], Report)
                self._observed.reported(message.worker, message.incarnation, report, now)
            case StreamsListed():
                self._lists.answered(message, descriptors[0])
        heard, self._heard = self._heard, trio.Event()
        heard.set()

    async def _keep_history(self) -> None:
        while True:
            await trio.sleep(1)
            self._observed.tick(self._clock())

    # ------------------------------------------------------------------ answering

    async def _page(self, request: AdminRequest) -> ServiceAnswer:
        del request
        return ServiceAnswer(200, PAGE, "text/html; charset=utf-8", PAGE_HEADERS)

    async def _health(self, request: AdminRequest) -> ServiceAnswer:
        del request
        return _text(200, "alive")

    async def _readiness(self, request: AdminRequest) -> ServiceAnswer:
        del request
        reason = self._observed.why_not_ready(self._clock())
        return _text(200, "ready") if reason is None else _text(503, reason)

    async def _metrics(self, request: AdminRequest) -> ServiceAnswer:
        with trio.move_on_after(COMPLETE_SECONDS):
            while not self._observed.is_complete:
                await self._heard.wait()
        supervision = self._observed.supervision
        if supervision is None:
            return _text(503, "the supervisor has not said anything yet")
        body, content_type = expose(
            self._observed.counters(),
            accept=request.accept,
            started_at=supervision.started_at,
            workers=len(supervision.workers),
            workers_ready=self._observed.workers_ready(self._clock()),
        )
        return ServiceAnswer(200, body, content_type)

    async def _status(self, request: AdminRequest) -> ServiceAnswer:
        del request
        status = self._observed.status(self._clock(), self._wall_clock())
        return _json({"version": __version__, **status})

    async def _streams(self, request: AdminRequest) -> ServiceAnswer:
        return _json(await self._lists.ask(self._observed.serving, request.limit))


def _text(status: int, text: str) -> ServiceAnswer:
    return ServiceAnswer(status, f"{text}\n".encode())


def _json(content: dict[str, Any]) -> ServiceAnswer:
    body = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    return ServiceAnswer(200, body, "application/json")


def _with_headers(answer: ServiceAnswer, headers: tuple[tuple[str, str], ...]) -> ServiceAnswer:
    return ServiceAnswer(
        answer.status, answer.body, answer.content_type, (*answer.headers, *headers)
    )


async def _serve(process: ServiceProcess) -> None:
    await AdminEndpoint(process).run()


def main() -> None:
    """Run as the parent's process of services."""
    run_service("parent", _serve)


if __name__ == "__main__":
    main()
