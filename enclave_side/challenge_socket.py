"""Where challenges of authorities are answered: a socket beside the stream socket.

The worker connects to it for a service with `to: acme`; the process of services has inherited it.
"""

import os
from typing import Final

from vsockproxy.addresses import UnixAddress
from vsockproxy.listening import Listener, ListenError, open_listener

__all__ = ("challenge_address", "open_challenge_socket")

_NAME: Final = "acme.sock"


def challenge_address(streams: str) -> UnixAddress:
    """Its address.

    Args:
        streams: the path of the stream socket.
    """
    return UnixAddress(os.path.join(os.path.dirname(streams), _NAME))


def open_challenge_socket(streams: str) -> Listener:
    """Listen there; the directory is the stream socket's, which was opened before.

    Raises:
        ListenError: that is not possible.
    """
    try:
        return open_listener(challenge_address(streams))
    except ListenError as error:
        raise ListenError(f"ingress[].to: acme: {error}") from error
