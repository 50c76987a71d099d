"""Contexts of OpenSSL as this project uses them: TLS 1.2 and 1.3, and nothing that only costs.

Renegotiation and compression are off: no client or server of today needs them, and both have been
ways to attack. Tickets are sealed with a key that lives and dies with its context; a server keeps
nothing for them. Clients of TLS 1.2 that take no tickets resume by an identifier, and what that
leads to is kept in the context: whoever serves strangers replaces it at `MOST_SESSIONS`.
"""

import ssl
from collections.abc import Sequence
from typing import Final

__all__ = ("MOST_SESSIONS", "client_context", "server_context")

MOST_SESSIONS: Final = 128
"""Kept by one context, at some 2 KB each: no more than what one open connection has. OpenSSL's own
limit is 20,480, of which Python's `ssl` can change nothing."""


def client_context(alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """For a client: the peer's chain and name are checked; whom to trust is still to be loaded.

    Args:
        alpn: the protocols to offer, the best first; none are not offered.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _limit(context, alpn)
    return context


def server_context(alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """For a server; its certificate is still to be loaded. It sends one ticket, not two.

    Args:
        alpn: the protocols to agree to, the best first.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _limit(context, alpn)
    context.num_tickets = 1
    return context


def _limit(context: ssl.SSLContext, alpn: Sequence[str]) -> None:
    if alpn:
        context.set_alpn_protocols(alpn)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
