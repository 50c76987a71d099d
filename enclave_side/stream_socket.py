"""Where the stream socket listens: a socket of packets that every user of the machine may use."""

import os
from typing import Final

from vsockproxy.addresses import UnixAddress
from vsockproxy.listening import Listener, ListenError, open_listener

__all__ = ("open_stream_socket",)

_MODE: Final = 0o666
"""The command may run as another user than we do, and policy decides by host and port alone."""

_DIRECTORY_MODE: Final = 0o755


def open_stream_socket(path: str) -> Listener:
    """Listen on `path`; its directory is made if only that is missing.

    Raises:
        ListenError: that is not possible.
    """
    directory = os.path.dirname(path)
    try:
        os.mkdir(directory)
        os.chmod(directory, _DIRECTORY_MODE)  # whatever the umask is
    except FileExistsError:
        pass
    except OSError as error:
        raise ListenError(
            f"cannot listen on unix://{path}: its directory cannot be made: {error.strerror}: "
            "write a path in a directory that may be written to"
        ) from error
    return open_listener(UnixAddress(path, mode=_MODE), is_of_packets=True)
