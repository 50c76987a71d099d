"""The stream socket: the way in for programs that use `vsockproxy.client`, and for the socket shim.

`vsockproxy.client.messages` has the packets. Unix sockets have no reset, so a stream's bytes travel
on a TCP connection of its own, whose far end the program is given before anybody has decided.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from enclave_side.links import Links
from enclave_side.listening_programs import ListeningPrograms
from enclave_side.opener import ANSWER_MARGIN_SECONDS, Destined, Opener
from enclave_side.shim.tunnels import relay_announced
from vsockproxy.client.messages import (
    MAX_REQUEST_BYTES,
    Listen,
    Listening,
    PacketError,
    Pending,
    Request,
    pack,
    unpack_request,
)
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.held_connections import HeldConnection, HeldConnections
from vsockproxy.dataplane.loop import Event, Task, spawn, timeout
from vsockproxy.dataplane.packet_connection import PacketConnection, PeerGone
from vsockproxy.dataplane.sockets import Acceptor
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy import Policy
from vsockproxy.session import ErrorCode, Open, Opened, Refusal, Resolve, Resolved

__all__ = ("MOST_REQUESTS", "WAY", "Streams")

WAY: Final = "streams"

FOREIGN_TEXT: Final = "services of the parent are for vsockproxy's own processes"

MOST_REQUESTS: Final = 4096
"""Connections that may wait at once, for their request or their answer. One takes up to three
descriptors, 5 KiB of ours and 22 KiB of the kernel."""


class Streams:
    """Serves the connections of the stream socket, and those that it is given, until it is closed.

    Args:
        opener: decides and opens the streams.
        policy: this side's, for names.
        links: asks the parent for names.
        log: for requests that cannot be read or served.
        programs: those that listen for services of this enclave.
        most_requests: connections that are served at once; one beyond is refused.
    """

    def __init__(
        self,
        opener: Opener,
        policy: Policy,
        links: Links,
        log: Log,
        programs: ListeningPrograms,
        *,
        most_requests: int = MOST_REQUESTS,
    ) -> None:
        self._opener = opener
        self._policy = policy
        self._links = links
        self._log = log
        self._programs = programs
        self._most_requests = most_requests
        self._held = HeldConnections()
        self._requests = 0
        self._is_full = False
        self._acceptor: Acceptor | None = None

    def listen(self, listener: socket.socket, exhausted: Callable[[OSError], None]) -> None:
        """Accept connections.

        Args:
            listener: non-blocking and listening; owned from now on.
            exhausted: as `Acceptor` has it.
        """
        self._acceptor = Acceptor(listener, lambda sock, _: self.serve(sock), exhausted)

    def close(self) -> None:
        """Accept no more; what was accepted goes on."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._held.close()

    def serve(self, sock: socket.socket) -> None:
        """Serve one connection of packets, non-blocking and owned from now on."""
        connection = PacketConnection(sock)
        if self._requests >= self._most_requests:
            self._refuse_one(connection)
            return
        self._is_full = False
        self._requests += 1
        # Not in the task itself: one that is cancelled before its first step runs no `finally`.
        spawn(self._serve(connection), "stream socket").add_done_callback(self._served)

    def _served(self, task: Task[None]) -> None:
        del task
        self._requests -= 1

    def _refuse_one(self, connection: PacketConnection) -> None:
        text = f"{self._requests} requests wait on the stream socket"
        if not self._is_full:
            self._is_full = True  # one line until there has been room again
            self._log.warning("stream_refused", way=WAY, reason="limit", text=text)
        with suppress(OSError):
            connection.send(pack(Refusal("limit", text)))
        connection.close()

    async def _serve(self, connection: PacketConnection) -> None:
        try:
            request = await self._read_request(connection)
            if isinstance(request, Open):
                await self._open(connection, request)
            elif isinstance(request, Listen):
                await self._listen(connection, request)
            elif request is not None:
                await self._resolve(connection, request)
        except PeerGone as gone:
            if gone.has_spoken:
                self._log.warning("bad_request", way=WAY, text="another packet before the answer")
        except OSError:
            pass  # the program has gone
        finally:
            connection.close()

    async def _read_request(self, connection: PacketConnection) -> Request | None:
        """The request; None if there is none to serve."""
        seconds = self._opener.limits.handshake
        try:
            async with timeout(seconds):
                packet = await connection.receive(MAX_REQUEST_BYTES)
            return unpack_request(packet) if packet else None
        except TimeoutError:
            text = f"no request in {seconds:g} s"
        except PacketError as error:
            text = str(error)
        self._log.warning("bad_request", way=WAY, text=text)
        return None

    async def _open(self, connection: PacketConnection, request: Open) -> None:
        try:
            held = await self._pass_socket(connection)
        except (BrokenPipeError, ConnectionResetError):
            return  # the program has gone
        except OSError as error:
            text = f"there is no socket for the stream: {error}"
            self._log.warning("stream_refused", way=WAY, reason="limit", text=text)
            connection.send(pack(Refusal("limit", text)))
            return
        try:
            with connection.while_peer_waits():
                destined, end = await self._ask(connection, request)
        except Refused as refused:
            # The packet first: who is woken by the reset finds the reason.
            with suppress(OSError):
                connection.send(pack(Refusal(refused.reason, refused.text)))
            held.reset()
        except BaseException:
            held.reset()
            raise
        else:
            await self._begin(connection, held, destined, end)

    async def _pass_socket(self, connection: PacketConnection) -> HeldConnection:
        """Give the program its end of the stream, which it cannot use yet."""
        held = await self._held.make()
        try:
            connection.send(pack(Pending()), [held.far_descriptor])
        except BaseException:
            held.reset()
            raise
        return held

    async def _ask(
        self, connection: PacketConnection, request: Open
    ) -> tuple[Destined | None, StreamEnd]:
        """The stream, and where it leads; None for a service of the parent."""
        opener = self._opener
        if request.service:
            # Else the command could speak to the parent as if it were one of our processes.
            if connection.peer_user != os.geteuid():
                opener.refuse_service(request.service, WAY, FOREIGN_TEXT)
            return None, await opener.open_service(request.service)
        destined = opener.decide(request.host, request.port, WAY)
        needs_tls = opener.requires_tls(destined)
        end = await opener.open(destined, is_dedicated=request.dedicated, is_final=not needs_tls)
        return destined, end

    async def _begin(
        self,
        connection: PacketConnection,
        held: HeldConnection,
        destined: Destined | None,
        end: StreamEnd,
    ) -> None:
        """Say that the stream stands, then relay."""
        address = destined.record.address if destined is not None else None
        try:
            connection.send(pack(Opened(address or "")))
            near = await held.let_go()
        except BaseException:
            end.reset(ErrorCode.CANCELLED)
            held.reset()
            raise
        connection.close()
        if destined is None:
            end.attach(near)
            return
        try:
            await relay_announced(self._opener, destined, end, near)
        except BaseException:
            reset_socket(near)
            raise

    async def _listen(self, connection: PacketConnection, request: Listen) -> None:
        """Give the program connections, for as long as it is there."""
        try:
            self._programs.check(request.service)
        except Refused as refused:
            self._log.warning(
                "listen_refused", way=WAY, service=request.service, reason=refused.reason
            )
            connection.send(pack(Refusal(refused.reason, refused.text)))
            return
        with self._programs.listening(request.service, connection):
            connection.send(pack(Listening()))
            self._log.info("program_listens", way=WAY, service=request.service)
            with connection.while_peer_waits():
                await Event().wait()

    async def _resolve(self, connection: PacketConnection, request: Resolve) -> None:
        decision, host = self._policy.decide_name_text(request.name)
        if decision.allowed and host is not None:
            with connection.while_peer_waits():
                answer = await self._ask_parent(host.text, request.record_type)
        else:
            answer = Resolved(decision.reason, decision.text)
            self._log.warning(
                "decision",
                host=host.text if host is not None else request.name,
                rule=decision.rule.source if decision.rule is not None else None,
                reason=decision.reason,
                way=WAY,
                allowed=False,
                text=decision.text,
            )
        connection.send(pack(answer))

    async def _ask_parent(self, name: str, record_type: int) -> Resolved:
        seconds = self._opener.limits.link_wait + ANSWER_MARGIN_SECONDS
        try:
            async with timeout(seconds):
                return await self._links.resolve(name, record_type)
        except Refused as refused:
            return Resolved(refused.reason, refused.text)
        except TimeoutError:
            return Resolved("lookup_failed", f"the parent did not answer in {seconds:g} s")
        except ConnectionResetError:
            return Resolved("parent_away", "the link to the parent ended before its answer")
