"""Contexts of OpenSSL as this project uses them: TLS 1.2 and 1.3, and nothing that only costs.

Renegotiation and compression are off: no client or server of today needs them, and both have been
ways to attack. Tickets are sealed with a key that lives and dies with its context; a server keeps
nothing for them.
"""

import ssl

__all__ = ("NamedTls", "client_context", "server_context")


class NamedTls(ssl.SSLObject):
    """A server's connection that remembers which name its client asked for."""

    asked_name: str | None = None


def client_context() -> ssl.SSLContext:
    """For a client: the peer's chain and name are checked; whom to trust is still to be loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _limit(context)
    return context


def server_context() -> ssl.SSLContext:
    """For a server; its certificate is still to be loaded. It sends one ticket, not two."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _limit(context)
    context.num_tickets = 1
    context.sslobject_class = NamedTls
    context.sni_callback = _remember_name
    return context


def _limit(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION


def _remember_name(tls: object, name: str | None, context: ssl.SSLContext) -> None:
    del context
    if isinstance(tls, NamedTls):
        tls.asked_name = name
