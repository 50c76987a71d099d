"""One enclave as a worker of the parent knows it."""

import secrets
import socket
from dataclasses import dataclass, field

from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.loop import call_later
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.policy import Policy
from vsockproxy.session import ErrorCode, Opened, ReceiveBudget
from vsockproxy.session.messages import TOKEN_BYTES


@dataclass(slots=True)
class Expected:
    """A dedicated stream whose connection has yet to present its token."""

    end: StreamEnd
    local: socket.socket


@dataclass(slots=True)
class Enclave:
    """One life of one enclave: a CID and an instance."""

    cid: int
    instance: bytes
    name: str | None
    policy: Policy
    budget: ReceiveBudget
    links: set[Link] = field(default_factory=set)
    expected: dict[bytes, Expected] = field(default_factory=dict)
    dedicated_streams: int = 0

    def expect(
        self, end: StreamEnd, local: socket.socket, address: str, wait_seconds: float
    ) -> None:
        """Answer a dedicated stream, and wait for the connection that presents its token.

        Args:
            end: the stream.
            local: the socket behind it; owned from now on.
            address: what was dialled.
            wait_seconds: after this the stream is reset.
        """
        token = secrets.token_bytes(TOKEN_BYTES)
        self.expected[token] = Expected(end, local)
        end.accept(Opened(address=address, token=token))
        call_later(wait_seconds, self._expire, token)

    def _expire(self, token: bytes) -> None:
        expected = self.expected.pop(token, None)
        if expected is not None:
            reset_socket(expected.local)
            expected.end.reset(ErrorCode.TIMED_OUT)
