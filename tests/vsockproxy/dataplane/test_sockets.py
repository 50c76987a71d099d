"""Accepted connections have the options of the byte path, whenever they came."""

import socket
import struct
from contextlib import ExitStack

from vsockproxy.addresses import TcpAddress
from vsockproxy.dataplane.dialling import NOT_SENT_BYTES, USER_TIMEOUT_SECONDS
from vsockproxy.dataplane.loop import new_future, run
from vsockproxy.dataplane.sockets import Acceptor
from vsockproxy.listening import open_listener

LINGER = struct.Struct("ii")


def options_of(sock: socket.socket) -> dict[str, int | tuple[int, ...]]:
    return {
        "no delay": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        "keepalive": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "user timeout": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        "not sent": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
        "linger": LINGER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER.size)),
        "blocking": sock.getblocking(),
    }


def test_options_of_connections_from_before_and_after_the_first_accept() -> None:
    listener = open_listener(TcpAddress("127.0.0.1", 0)).socket
    found: list[dict[str, int | tuple[int, ...]]] = []

    async def serve() -> None:
        arrived = new_future()

        def accepted(sock: socket.socket, _: object) -> None:
            with sock:
                found.append(options_of(sock))
            arrived.set_result(None)

        with ExitStack() as stack:
            stack.enter_context(socket.create_connection(listener.getsockname()))
            acceptor = Acceptor(listener, accepted, exhausted=lambda error: None)
            stack.callback(acceptor.close)
            await arrived
            arrived = new_future()
            stack.enter_context(socket.create_connection(listener.getsockname()))
            await arrived

    run(serve())
    wanted = {
        "no delay": 1,
        "keepalive": 1,
        "user timeout": USER_TIMEOUT_SECONDS * 1000,
        "not sent": NOT_SENT_BYTES,
        "linger": (1, 0),
        "blocking": False,
    }
    assert found == [wanted, wanted]
