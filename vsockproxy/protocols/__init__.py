"""Formats that programs speak to us: HTTP proxy requests and the first bytes of TLS. Pure.

Bytes and values are the only arguments and results: no socket, loop, clock or randomness. Every
reader ends in a value, in "more", or in a ProtocolError.
"""

from vsockproxy.protocols.errors import ProtocolError

__all__ = ("ProtocolError",)
