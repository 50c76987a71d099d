"""What programs speak to us: HTTP and SOCKS proxy requests, DNS, the first bytes of TLS. Pure.

Bytes and values are the only arguments and results: no socket, loop, clock or randomness. Every
reader ends in a value, in "more", or in a ProtocolError.
"""

from vsockproxy.protocols.errors import ProtocolError

__all__ = ("ProtocolError",)
