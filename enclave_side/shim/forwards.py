"""The way in for a fixed local port: each connection leads to one destination."""

import socket

from enclave_side.opener import Opener
from enclave_side.shim.tunnels import serve_silently
from vsockproxy.config.model import EnclaveForward
from vsockproxy.dataplane.loop import spawn

WAY = "forward"


class Forward:
    """Serves the connections of one forward's listener.

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
        to = self._forward.to
        spawn(
            serve_silently(
                self._opener,
                sock,
                to.host.text,
                to.port,
                WAY,
                is_dedicated=self._forward.carrier == "dedicated",
            ),
            f"forward to {to}",
        )
