"""One enclave as a worker of the parent knows it."""

import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from parent_side.trust import Attested
from vsockproxy.dataplane.closing import arm_reset, reset_socket
from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.loop import call_later
from vsockproxy.dataplane.stream_end import ENDED_TIMED_OUT, StreamEnd
from vsockproxy.dataplane.tls_first_bytes import Read
from vsockproxy.policy import Admission, Policy
from vsockproxy.session import ErrorCode, Opened, ReceiveBudget
from vsockproxy.session.messages import TOKEN_BYTES

Check = Callable[[Read, bytes], Awaitable[bytes]]


@dataclass(slots=True, eq=False)
class Expected:
    """A dedicated stream whose connection has yet to present its token.

    It stands where the relay will be, so that the socket behind the stream ends with the stream.
    """

    end: StreamEnd
    local: socket.socket
    forget: Callable[[], object]
    """Takes the token back."""
    check: Check | None
    """Reads the connection's first bytes where they must be a ClientHello, and gives them back;
    ConnectionResetError when they are none, and the stream is reset."""
    bytes_sent: int = 0
    bytes_received: int = 0

    def peer_finished(self, total_bytes: int) -> None:
        """Nothing: the relay will ask the end of the stream for the total."""

    def stream_closed(self, ended: str) -> None:
        """The stream is over before it began."""
        del ended
        self.forget()
        reset_socket(self.local)


@dataclass(slots=True)
class Enclave:
    """One life of one enclave: a CID and an instance."""

    cid: int
    instance: bytes
    name: str | None
    policy: Policy
    budget: ReceiveBudget
    admission: Admission = field(default_factory=Admission)
    attested: Attested | None = None
    """What its latest document said, if it had to show one."""
    links: set[Link] = field(default_factory=set)
    services: frozenset[str] = frozenset()
    """What it offers, as its latest hello says."""
    expected: dict[bytes, Expected] = field(default_factory=dict)
    dedicated_streams: int = 0

    def expect(
        self,
        end: StreamEnd,
        local: socket.socket,
        address: str,
        wait_seconds: float,
        check: Check | None,
    ) -> None:
        """Answer a dedicated stream, and wait for the connection that presents its token.

        Args:
            end: the stream.
            local: the socket behind it; owned from now on.
            address: what was dialled.
            wait_seconds: after this the stream is reset.
            check: for the first bytes of the connection.
        """
        if end.is_closed:
            reset_socket(local)
            return
        arm_reset(local)
        token = secrets.token_bytes(TOKEN_BYTES)
        expected = Expected(end, local, lambda: self.expected.pop(token, None), check)
        self.expected[token] = end.dedicated = expected
        end.accept(Opened(address=address, token=token))
        call_later(wait_seconds, self._expire, token)

    def _expire(self, token: bytes) -> None:
        expected = self.expected.pop(token, None)
        if expected is not None:
            expected.end.reset(ErrorCode.TIMED_OUT, ENDED_TIMED_OUT)
