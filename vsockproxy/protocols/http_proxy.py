"""Reads the one request that a client of our HTTP proxy sends on a connection.

    CONNECT HOST:PORT         a tunnel (RFC 9110, section 9.3.6)
    GET http://HOST[:PORT]/…  a request to pass on (absolute-form, RFC 9112, section 3.2.2)

The request target is the only thing that says where to connect. A Host header that disagrees with
it is refused rather than ignored, but for what real clients send:

- none, in HTTP/1.0: urllib, requests and boto3 on Python up to 3.11, openssl s_client;
- without a port, on CONNECT: aiohttp, Java's HttpURLConnection;
- the proxy's own address: Node's http.request, whose documented way to a proxy sends that.
"""

import re
from dataclasses import dataclass
from typing import Final

import h11

from vsockproxy.addresses import AddressError, Destination, normalise_host, parse_destination
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_head import HeadReader, header, receive_request

__all__ = ("ConnectRequest", "ForwardRequest", "ProxyRequestReader")

MAX_HEAD_BYTES: Final = 16 * 1024
"""Of the request line and headers together. Node takes 16 KiB, Apache 8 KiB for a line."""
MAX_HEADERS: Final = 100
"""As in Apache and HAProxy."""
DEFAULT_HTTP_PORT: Final = 80

_TOKEN_CHARACTERS = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
_TLS_HANDSHAKE = 0x16
_ABSOLUTE_FORM = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A tunnel is asked for."""

    destination: Destination
    trailing: bytes
    """What the client sent after the head; it waits for the 2xx, and is dropped without one."""


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """A request for `http://`, to be carried out by `http_exchange.ForwardedExchange`."""

    destination: Destination
    method: str
    target: str
    """In origin-form (or `*`), as the origin wants it."""
    head: bytes
    """As it came, checked."""
    trailing: bytes
    """What came after the head: the body, or its beginning."""


class ProxyRequestReader:
    """Reads one request; what follows it is the caller's.

    Args:
        own_host: the address on which the client reached this proxy (a literal or a name).
    """

    __slots__ = ("_head", "_is_done", "_is_empty", "_own_hosts")

    def __init__(self, own_host: str = "127.0.0.1") -> None:
        self._own_hosts = frozenset(("localhost", normalise_host(own_host).text))
        self._head = HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)
        self._is_empty = True
        self._is_done = False

    def receive(self, data: bytes) -> ConnectRequest | ForwardRequest | None:
        """Take the next bytes; returns the request, or None while its head is incomplete.

        Call it no more after a request or an error.

        Raises:
            HttpRequestError: to be answered with `http_answers.refusal`; then close.
        """
        if self._is_done:
            raise RuntimeError("a proxy connection carries one request")
        self._is_done = True  # So it stays if this raises.
        request = self._receive(data)
        self._is_done = request is not None
        return request

    def _receive(self, data: bytes) -> ConnectRequest | ForwardRequest | None:
        if self._is_empty and data:
            self._is_empty = False
            _check_first_byte(data[0])
        received = receive_request(self._head, data)
        if received is None:
            return None
        request, head, trailing = received
        if request.method == b"CONNECT":
            return self._read_connect(request, trailing)
        return self._read_forward(request, head, trailing)

    def _read_connect(self, request: h11.Request, trailing: bytes) -> ConnectRequest:
        try:
            destination = _parse_authority(request.target.decode("ascii"), None)
        except AddressError as error:
            raise HttpRequestError(400, f"CONNECT wants HOST:PORT: {error}") from None
        if header(request, b"transfer-encoding") or header(request, b"content-length") not in (
            None,
            b"0",
        ):
            raise HttpRequestError(
                400, "CONNECT has no body: send neither length nor Transfer-Encoding"
            )
        self._check_host(request, destination, destination.port)
        return ConnectRequest(destination, trailing)

    def _read_forward(self, request: h11.Request, head: bytes, trailing: bytes) -> ForwardRequest:
        destination, target = _split_target(request)
        check_framing(request)
        self._check_host(request, destination, DEFAULT_HTTP_PORT)
        method = request.method.decode("ascii")
        return ForwardRequest(destination, method, target, head, trailing)

    def _check_host(
        self, request: h11.Request, destination: Destination, default_port: int
    ) -> None:
        value = header(request, b"host")
        if value is None:  # h11 lets only HTTP/1.0 leave it out.
            return
        try:
            named = _parse_authority(value.decode("latin-1"), default_port)
        except AddressError as error:
            raise HttpRequestError(400, f"the Host header is malformed: {error}") from None
        if named != destination and named.host.text not in self._own_hosts:
            raise HttpRequestError(400, f"the Host header names {named}, the request {destination}")


def check_framing(request: h11.Request) -> None:
    """Demand one framing of the body.

    Raises:
        HttpRequestError: there are two, by which requests are smuggled (RFC 9112, section 6.1).
    """
    if header(request, b"transfer-encoding"):
        if header(request, b"content-length"):
            raise HttpRequestError(400, "both Content-Length and Transfer-Encoding")
        if request.http_version == b"1.0":
            raise HttpRequestError(400, "Transfer-Encoding in HTTP/1.0")


def _check_first_byte(first: int) -> None:
    if first == _TLS_HANDSHAKE:
        raise HttpRequestError(
            400, "this proxy speaks HTTP, TLS arrived: write its URL with http://"
        )
    if first not in _TOKEN_CHARACTERS:
        raise HttpRequestError(400, "this proxy speaks HTTP, something else arrived")


def _split_target(request: h11.Request) -> tuple[Destination, str]:
    parts = _ABSOLUTE_FORM.fullmatch(request.target.decode("ascii"))
    if parts is None:
        raise HttpRequestError(
            400, "this is a proxy: ask for http://HOST/PATH, or for a tunnel with CONNECT HOST:PORT"
        )
    if parts["scheme"].lower() != "http":
        raise HttpRequestError(
            400, "only http:// is passed on: ask for a tunnel with CONNECT HOST:PORT"
        )
    try:
        destination = _parse_authority(parts["authority"], DEFAULT_HTTP_PORT)
    except AddressError as error:
        raise HttpRequestError(400, f"the URL's host is malformed: {error}") from None
    query = parts["query"] or ""
    if not parts["path"] and not query and request.method == b"OPTIONS":
        return destination, "*"  # RFC 9112, section 3.2.4
    return destination, (parts["path"] or "/") + query


def _parse_authority(text: str, default_port: int | None) -> Destination:
    if "@" in text:  # Not quoted: a password may be part of it.
        raise AddressError("a user name before the host", "send an Authorization header instead")
    if default_port is not None and (text.endswith("]") or ":" not in text):
        text = f"{text}:{default_port}"
    return parse_destination(text)
