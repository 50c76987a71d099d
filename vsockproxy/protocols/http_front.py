"""Requests of programs for whom a plain HTTP server on loopback stands for one https destination.

To them we are the origin: origin-form targets, and any Host, since it names what they reach us by.
"""

import re
from typing import Final

from vsockproxy.addresses import Destination
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_head import HeadReader, receive_request
from vsockproxy.protocols.http_proxy import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    ForwardRequest,
    check_framing,
)

__all__ = ("DEFAULT_HTTPS_PORT", "FrontRequestReader")

DEFAULT_HTTPS_PORT: Final = 443

_ABSOLUTE_FORM = re.compile(r"https?://[^/?#]*(?P<rest>.*)", re.IGNORECASE | re.DOTALL)


class FrontRequestReader:
    """Reads one request; what follows its head is the caller's.

    Args:
        destination: what the request is turned to.
    """

    __slots__ = ("_destination", "_head")

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._head = HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)

    def receive(self, data: bytes) -> ForwardRequest | None:
        """Take the next bytes; returns the request, or None while its head is incomplete.

        Call it no more after a request or an error.

        Raises:
            HttpRequestError: to be answered with `http_answers.refusal`; then close.
        """
        received = receive_request(self._head, data)
        if received is None:
            return None
        request, head, trailing = received
        if request.method == b"CONNECT":
            raise HttpRequestError(501, "this is no proxy: CONNECT leads nowhere")
        check_framing(request)
        target = _origin_form(request.target.decode("ascii"), request.method)
        method = request.method.decode("ascii")
        return ForwardRequest(self._destination, method, target, head, trailing)


def _origin_form(target: str, method: bytes) -> str:
    """The target as an origin wants it (RFC 9112, section 3.2)."""
    if absolute := _ABSOLUTE_FORM.fullmatch(target):
        target = absolute["rest"]
        if not target and method == b"OPTIONS":
            return "*"
        if not target.startswith("/"):
            target = f"/{target}"
    if target.startswith("/") or (target == "*" and method == b"OPTIONS"):
        return target
    raise HttpRequestError(400, "the target of the request is no path")
