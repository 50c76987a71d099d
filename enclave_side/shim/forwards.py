"""The way in for a fixed local port: each connection leads to one destination."""

import socket
from collections.abc import Callable

from enclave_side.opener import Opener
from enclave_side.shim.http_front import HttpFront
from enclave_side.shim.tunnels import serve_silently
from vsockproxy.config.model import EnclaveForward
from vsockproxy.dataplane.loop import spawn
from vsockproxy.dataplane.tls_client import TlsClient
from vsockproxy.log import Log

WAY = "forward"


def serve_forward(
    opener: Opener, log: Log, forward: EnclaveForward
) -> Callable[[socket.socket, object], None]:
    """What takes the connections of a forward's listener.

    Args:
        opener: decides and opens the streams.
        log: for requests that cannot be read, where it speaks HTTP.
        forward: its section of the file.

    Raises:
        TlsFileError: a file that it names cannot be used.
    """
    if forward.protocol == "http":
        return HttpFront(opener, log, forward, WAY).accepted
    return Forward(opener, forward).accepted


class Forward:
    """Serves the connections of one forward's listener.

    Args:
        opener: decides and opens the streams.
        forward: where its connections lead, on which carrier, and whether with TLS of ours.

    Raises:
        TlsFileError: a file that it names cannot be used.
    """

    def __init__(self, opener: Opener, forward: EnclaveForward) -> None:
        self._opener = opener
        self._forward = forward
        self._name = f"forward to {forward.to}"
        self._client = TlsClient.for_forward(forward) if forward.tls else None

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
                client=self._client,
            ),
            self._name,
        )
