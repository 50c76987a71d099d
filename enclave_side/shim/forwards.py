"""The way in for a fixed local port: each connection leads to one destination."""

import socket

from enclave_side.opener import Opener
from vsockproxy.config.model import EnclaveForward
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.loop import spawn
from vsockproxy.errors import Refused
from vsockproxy.session import ErrorCode

WAY = "forward"


class Forward:
    """Serves the connections of one forward's listener.

    A refusal is a reset: the program's connection stood before anybody could be asked.

    Args:
        opener: decides and opens the streams.
        forward: where its connections lead, and on which carrier.
    """

    def __init__(self, opener: Opener, forward: EnclaveForward) -> None:
        self._opener = opener
        self._forward = forward

    def accepted(self, sock: socket.socket, address: object) -> None:
        """Serve one connection."""
        del address
        spawn(self._serve(sock), f"forward to {self._forward.to}")

    async def _serve(self, sock: socket.socket) -> None:
        opener = self._opener
        to = self._forward.to
        try:
            destined = opener.decide(to.host.text, to.port, WAY)
            first_bytes = b""
            if opener.requires_tls(destined):
                first_bytes = await opener.read_client_hello(destined, sock)
            end = await opener.open(destined, is_dedicated=self._forward.carrier == "dedicated")
        except (Refused, OSError):
            reset_socket(sock)
            return
        except BaseException:
            reset_socket(sock)
            raise
        try:
            await opener.relay(destined, end, sock, first_bytes)
        except Refused:
            reset_socket(sock)
        except BaseException:
            end.reset(ErrorCode.CANCELLED)
            reset_socket(sock)
            raise
