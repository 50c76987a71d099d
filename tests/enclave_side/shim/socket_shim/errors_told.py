"""How a connection that fails is told to a test: by the symbol of its error."""

import errno
import socket

CONNECTED = "connected"


def symbol(error: OSError) -> str:
    """The name of an error's number."""
    if isinstance(error, socket.gaierror):
        names = (name for name in dir(socket) if name.startswith("EAI_"))
        return next(name for name in names if getattr(socket, name) == error.errno)
    if isinstance(error, socket.herror):
        return f"herror {error.errno}"
    if error.errno is None:
        return str(error)
    return errno.errorcode[error.errno]


def number_symbol(number: int) -> str:
    """The same for a number; `connected` for none."""
    return errno.errorcode[number] if number else CONNECTED
