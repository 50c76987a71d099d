"""What our HTTP proxy itself answers: that a tunnel stands, or why a request is refused.

A refusal is complete and last: it carries `Connection: close`, and after it the connection is
closed without parsing another byte of it (RFC 9931: bytes after a refused CONNECT were meant for
the tunnel and may be chosen by a third party).
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

__all__ = ("STATUS_BY_REASON", "connect_established", "refusal", "status_for")

STATUS_BY_REASON: Final[Mapping[str, HTTPStatus]] = MappingProxyType(
    {
        "not_listed": HTTPStatus.FORBIDDEN,
        "attestation_required": HTTPStatus.FORBIDDEN,
        "port_not_listed": HTTPStatus.FORBIDDEN,
        "denied": HTTPStatus.FORBIDDEN,
        "address_private": HTTPStatus.FORBIDDEN,
        "address_metadata": HTTPStatus.FORBIDDEN,
        "address_reserved": HTTPStatus.FORBIDDEN,
        "not_tls": HTTPStatus.FORBIDDEN,
        "sni_mismatch": HTTPStatus.FORBIDDEN,
        "tls_failed": HTTPStatus.BAD_GATEWAY,
        "no_such_name": HTTPStatus.BAD_GATEWAY,
        "lookup_failed": HTTPStatus.BAD_GATEWAY,
        "dial_refused": HTTPStatus.BAD_GATEWAY,
        "dial_timeout": HTTPStatus.GATEWAY_TIMEOUT,
        "limit": HTTPStatus.SERVICE_UNAVAILABLE,
        "parent_away": HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""The HTTP status for each reason (`vsockproxy.policy.reasons.Reason`) that refuses."""

MAX_HOST_PORT_CHARACTERS: Final = 300
"""A name of 253 bytes, a port, and room; the rest of a longer text is cut off."""
MAX_TEXT_CHARACTERS: Final = 1000

_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9_*.:/-]{0,63}", re.ASCII)
"""A structured field's token (RFC 9651, section 3.3.4), without the marks nobody's reason has."""
_REASON_UNKNOWN = "proxy_internal_error"
"""An error type of RFC 9209, section 2.3; stands for a reason that is no token."""


def status_for(reason: str) -> HTTPStatus:
    """The status that answers `reason`.

    A reason we do not know comes from a newer other side, and is a "no" like any other: 403.
    """
    return STATUS_BY_REASON.get(reason, HTTPStatus.FORBIDDEN)


def connect_established() -> bytes:
    """The 2xx to a CONNECT; to be sent when the destination is connected, not before (RFC 9110)."""
    return b"HTTP/1.1 200 Connection established\r\n\r\n"


def refusal(status: int, reason: str, host_port: str, text: str, *, has_body: bool = True) -> bytes:
    """A complete answer that refuses one request; close the connection after it.

    Nothing in the arguments can add a header or a line: what is not printable becomes `?`.

    Args:
        status: 400-599.
        reason: the error token of Proxy-Status (RFC 9209).
        host_port: what was asked for, `-` if that is unknown.
        text: what to do, one line.
        has_body: False for the answer to a HEAD request.
    """
    token = reason if _TOKEN.fullmatch(reason) else _REASON_UNKNOWN
    asked = _printable(host_port, MAX_HOST_PORT_CHARACTERS).replace(" ", "?")
    line = f"{token}: {asked}: {_printable(text, MAX_TEXT_CHARACTERS)}\n".encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Proxy-Status: vsockproxy; error={token}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(line)}\r\n"
        "Connection: close\r\n"
        "\r\n"
    ).encode("ascii")
    return head + line if has_body else head


def _printable(text: str, most_characters: int) -> str:
    # Surrogates, line and paragraph separators and bidirectional marks are not printable either.
    return "".join(char if char.isprintable() else "?" for char in text[:most_characters])
