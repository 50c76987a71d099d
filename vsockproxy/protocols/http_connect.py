"""CONNECT as a client (RFC 9110, section 9.3.6): one request to a proxy, and its answer's head.

The head is bounded and checked as those of our own proxy's clients and origins are. What follows
it belongs to the tunnel, whatever lengths a head of status 2xx claims. Nothing that the proxy sent
is quoted, but its status: a head may hold credentials, and texts are logged.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

from vsockproxy.addresses import Destination
from vsockproxy.protocols.errors import INCOMPLETE, MALFORMED, HeadError, HttpResponseError
from vsockproxy.protocols.http_head import HeadReader, without_quotes

__all__ = ("ConnectAnswer", "ConnectExchange")

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADERS: Final = 128
MAX_INTERIM_HEADS: Final = 8
"""Of status 1xx, which nobody has a use for here."""


@dataclass(frozen=True, slots=True)
class ConnectAnswer:
    """What the proxy made of the request.

    Args:
        status: of HTTP; 2xx stands for a tunnel.
        trailing: bytes behind the head: of the tunnel if there is one, else of no interest.
    """

    status: int
    trailing: bytes

    @property
    def is_tunnel(self) -> bool:
        """Whether the connection is a tunnel from here on."""
        return 200 <= self.status < 300

    @property
    def may_differ(self) -> bool:
        """Whether another address of the same name may fare better: this one was not reached."""
        return self.status >= 500

    @property
    def reason(self) -> str:
        """The reason of a refusal, as text (`vsockproxy.policy.reasons.Reason`)."""
        is_slow = self.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT)
        return "dial_timeout" if is_slow else "dial_refused"

    @property
    def text(self) -> str:
        """What a refusal says, and where there is something, what to do about it."""
        match self.status:
            case HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                text = "wants credentials, or other ones: see upstream_proxy.credentials"
            case HTTPStatus.FORBIDDEN:
                text = "forbids this destination"
            case HTTPStatus.BAD_GATEWAY | HTTPStatus.SERVICE_UNAVAILABLE:
                text = "could not connect to it"
            case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.GATEWAY_TIMEOUT:
                text = "could not connect to it in time"
            case _:
                text = "did not connect to it"
        return f"answered {self.status}: it {text}"


class ConnectExchange:
    """Asks a proxy for one tunnel, in bytes that the caller moves.

    Send `request`, then give what arrives to `receive` until there is an answer.

    Args:
        destination: what the tunnel leads to.
        authorization: the value of Proxy-Authorization, if the proxy wants one.
    """

    __slots__ = ("_connection", "_head", "_interim_heads", "request")

    def __init__(self, destination: Destination, authorization: bytes | None = None) -> None:
        authority = str(destination).encode("ascii")
        headers = [(b"Host", authority)]
        if authorization is not None:
            headers.append((b"Proxy-Authorization", authorization))
        self._connection = h11.Connection(h11.CLIENT)
        request = h11.Request(method=b"CONNECT", target=authority, headers=headers)
        self.request = self._connection.send(request)
        self._connection.send(h11.EndOfMessage())
        self._head = _head_reader()
        self._interim_heads = 0

    def receive(self, data: bytes) -> ConnectAnswer | None:
        """Take the next bytes; returns the answer, or None while its head is incomplete.

        Raises:
            HttpResponseError: the proxy did not send the head of a response; use this no more.
        """
        try:
            while (parts := self._head.receive(data)) is not None:
                head, data = parts
                self._connection.receive_data(head)
                event = self._connection.next_event()
                if isinstance(event, h11.Response):
                    return ConnectAnswer(event.status_code, data)
                self._interim_heads += 1
                if self._interim_heads > MAX_INTERIM_HEADS:
                    raise HeadError(f"more than {MAX_INTERIM_HEADS} heads of status 1xx")
                self._head = _head_reader()
        except HeadError as error:
            raise HttpResponseError(MALFORMED, f"sent {error.text}") from None
        except h11.RemoteProtocolError as error:
            text = f"sent a malformed response: {without_quotes(error)}"
            raise HttpResponseError(MALFORMED, text) from None
        return None

    def eof(self) -> HttpResponseError:
        """What it means that the proxy closed before its answer was complete."""
        return HttpResponseError(INCOMPLETE, "closed before it had answered")


def _head_reader() -> HeadReader:
    return HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)
