"""The roots that a parent's file trusts: read, and found wanting before anything starts.

Certificates are parsed by `cryptography`, which only the extra `trust` brings.
"""

import os
from importlib.util import find_spec
from typing import Final

from vsockproxy.config.document import Document, line_of
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.model import ParentConfig
from vsockproxy.errors import VsockproxyError

__all__ = ("RootsNotUsable", "read_trusted_roots", "root_file_fault", "trusted_roots_fault")

MAX_FILE_BYTES: Final = 64 * 1024


class RootsNotUsable(VsockproxyError):
    """The file of root certificates cannot be read, or holds none.

    Args:
        path: the file.
        what: what is wrong with it.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.what = what


def trusted_roots_fault(document: Document) -> ConfigError | None:
    """What keeps a parent from verifying attestation documents; None if nothing, or if none are."""
    path = _demanding(document)
    if path is not None and not _can_verify():
        what = "documents cannot be verified: the package cryptography is not installed"
        mend = "pip install 'vsockproxy[trust]'"
        return ConfigError(document.file, line_of(document.lines, path), path, what, mend)
    return root_file_fault(document)


def root_file_fault(document: Document) -> ConfigError | None:
    """What is wrong with the roots that a parent needs; None too where they cannot be parsed."""
    config = document.config
    if _demanding(document) is None or not isinstance(config, ParentConfig) or not _can_verify():
        return None
    try:
        read_trusted_roots(config.attestation.root)
    except RootsNotUsable as error:
        key = "attestation.root"
        mend = "write the path of a PEM file that this user may read"
        return ConfigError(document.file, line_of(document.lines, key), key, str(error), mend)
    return None


def _demanding(document: Document) -> str | None:
    """The path of the first entry that demands a document of an enclave."""
    config = document.config
    entries = config.enclaves if isinstance(config, ParentConfig) else ()
    return next((f"enclaves[{n}].pcrs" for n, each in enumerate(entries) if each.pcrs), None)


def _can_verify() -> bool:
    return find_spec("cryptography") is not None


def read_trusted_roots(path: str | None) -> tuple[bytes, ...]:
    """The certificates in a PEM file, DER; AWS's own without one.

    Raises:
        RootsNotUsable: it cannot be read, or holds no certificate.
    """
    # Here, because most parents verify nothing.
    from vsockproxy.attestation.documents import AWS_ROOT, RequirementError, read_roots

    if path is None:
        return (AWS_ROOT,)
    try:
        # Not to wait for whoever would write into a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            return read_roots(os.read(descriptor, MAX_FILE_BYTES))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RootsNotUsable(path, f"cannot be read: {error.strerror}") from error
    except RequirementError as error:
        raise RootsNotUsable(path, str(error)) from error
