"""The credentials for the upstream proxy: a file of one line, `user:password`.

They are kept as the header that carries them, and shown nowhere.
"""

import os
import stat
from base64 import b64encode
from typing import Final

from vsockproxy.config.document import Document, line_of
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.model import ParentConfig
from vsockproxy.errors import VsockproxyError

__all__ = ("CredentialsNotUsable", "credentials_fault", "read_authorization")

MAX_FILE_BYTES: Final = 4096

_OTHERS: Final = stat.S_IRWXO
"""What the mode may give to nobody but the owner and the group."""


class CredentialsNotUsable(VsockproxyError):
    """The file cannot be read, or does not hold what it must.

    Args:
        path: the file.
        what: what is wrong with it.
        mend: what to do about it.
    """

    def __init__(self, path: str, what: str, mend: str) -> None:
        super().__init__(f"{path}: {what}: {mend}")
        self.what = what
        self.mend = mend


def credentials_fault(document: Document) -> ConfigError | None:
    """What keeps a parent from using its credentials for the upstream proxy; None if nothing."""
    config = document.config
    if not isinstance(config, ParentConfig) or config.upstream_proxy is None:
        return None
    path = config.upstream_proxy.credentials
    try:
        if path is not None:
            read_authorization(path)
    except CredentialsNotUsable as error:
        key = "upstream_proxy.credentials"
        line = line_of(document.lines, key)
        return ConfigError(document.file, line, key, f"{path}: {error.what}", error.mend)
    return None


def read_authorization(path: str) -> bytes:
    """The value of Proxy-Authorization that the file at `path` makes (RFC 7617, section 2).

    Raises:
        CredentialsNotUsable: the file is absent, open to everybody, or not of that form.
    """
    try:
        # Not to wait for whoever would write into a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            found = os.fstat(descriptor)
            content = os.read(descriptor, MAX_FILE_BYTES + 1) if _is_file(found) else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise CredentialsNotUsable(path, what, "check the path and its permissions") from None
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    user, colon, _ = line.partition(b":")
    mode = stat.S_IMODE(found.st_mode)
    write_one = "write user:password on one line into it"
    if not _is_file(found):
        raise CredentialsNotUsable(path, "is no regular file", write_one)
    if mode & _OTHERS:
        what = f"has mode {mode:04o}, which is open to everybody"
        raise CredentialsNotUsable(path, what, "take it from others with chmod o=")
    if len(content) > MAX_FILE_BYTES:
        raise CredentialsNotUsable(path, f"has more than {MAX_FILE_BYTES} bytes", write_one)
    if not colon or not user:
        raise CredentialsNotUsable(path, "does not hold user:password", write_one)
    if any(byte < 0x20 or byte == 0x7F for byte in line):
        raise CredentialsNotUsable(path, "has a control character or a second line", write_one)
    return b"Basic " + b64encode(line)


def _is_file(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode)
