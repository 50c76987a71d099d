"""Where the stream socket is: the environment says so, and `vsockproxy enclave` sets it."""

import errno
import os
from collections.abc import Mapping
from typing import Final

from vsockproxy.client.errors import StreamSocketMissing

__all__ = ("VARIABLE", "missing", "stream_socket_path")

VARIABLE: Final = "VSOCKPROXY_STREAMS"
"""The environment variable that names the stream socket."""

_RUN: Final = "run the program under `vsockproxy enclave -- COMMAND` or `vsockproxy sandbox`"
_MEANINGS: Final[Mapping[int, str]] = {
    errno.ENOENT: f"there is no such socket: {_RUN}",
    errno.ECONNREFUSED: f"nobody listens there any more: {_RUN}",
    errno.EACCES: "this user may not: give the command's user access to its directory",
    errno.EPROTOTYPE: f"it is another kind of socket: correct {VARIABLE}",
    errno.ENOTSOCK: f"it is no socket: correct {VARIABLE}",
}


def stream_socket_path(path: str | None = None) -> str:
    """The path of the stream socket: `path`, or else what the environment names.

    Raises:
        StreamSocketMissing: neither says.
    """
    found = path or os.environ.get(VARIABLE)
    if not found:
        raise StreamSocketMissing(errno.ENOENT, f"{VARIABLE} is not set: {_RUN}")
    return found


def missing(path: str, error: OSError | ValueError) -> StreamSocketMissing:
    """What a failed connect to `path` means; a ValueError is for a path that cannot be one."""
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
    meaning = _MEANINGS.get(number, os.strerror(number))
    return StreamSocketMissing(number, f"cannot connect to the stream socket {path}: {meaning}")
