"""Programs that listen for a service on the stream socket, with `vsockproxy.client`."""

import socket
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from vsockproxy.client.messages import Incoming, pack
from vsockproxy.dataplane.held_connections import HeldConnections
from vsockproxy.dataplane.packet_connection import PacketConnection
from vsockproxy.errors import Refused
from vsockproxy.protocols.proxy_v2 import ProxyHeader

__all__ = ("ListeningPrograms",)


class ListeningPrograms:
    """Who listens for which service, and gives each its connections.

    Args:
        services: the services that programs may listen for.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._programs: dict[str, deque[PacketConnection]] = {name: deque() for name in services}
        self._held = HeldConnections()

    def check(self, service: str) -> None:
        """Look whether programs may listen for a service.

        Raises:
            Refused: with `not_listed`.
        """
        if service not in self._programs:
            text = f"{service} is no service for programs: add it to ingress, with to: streams"
            raise Refused("not_listed", text)

    @contextmanager
    def listening(self, service: str, connection: PacketConnection) -> Iterator[None]:
        """Give the program behind a connection its part of a service's streams meanwhile."""
        programs = self._programs[service]
        programs.append(connection)
        try:
            yield
        finally:
            programs.remove(connection)

    async def connect(self, service: str, header: ProxyHeader) -> socket.socket:
        """A new connection to a program that listens; the caller's end of it.

        Raises:
            Refused: nobody listens, or takes connections, or there is no socket for one.
        """
        try:
            held = await self._held.make()
        except OSError as error:
            raise Refused("limit", f"there is no socket for the stream: {error}") from error
        held.arm_far()  # what no program takes out of its queue is no clean end
        incoming = pack(
            Incoming(
                "" if header.client is None else str(header.client),
                "" if header.server is None else str(header.server),
            )
        )
        programs = self._programs[service]
        text = f"no program listens for {service} on the stream socket"
        try:
            for _ in range(len(programs)):
                programs.rotate(-1)  # in turns
                try:
                    programs[-1].send(incoming, [held.far_descriptor])
                except BlockingIOError:
                    text = f"the queue of the program that listens for {service} is full"
                except OSError as error:
                    # It has gone, and will be taken out at once; or too many descriptors wait.
                    text = f"the program that listens for {service} takes no connection: {error}"
                else:
                    break
            else:
                raise Refused("dial_refused", text)
        except BaseException:
            held.reset()
            raise
        try:
            return await held.let_go()
        except OSError as error:
            raise Refused(
                "dial_refused", f"the program has reset its connection: {error}"
            ) from error

    def close(self) -> None:
        """Make no more connections."""
        self._held.close()
