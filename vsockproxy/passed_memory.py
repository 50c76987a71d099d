"""What is too large for a message, and travels as a descriptor of memory beside it."""

import os
from typing import Final

import cbor2
import msgspec

from vsockproxy.addresses import AddressError
from vsockproxy.config.document import Document
from vsockproxy.worker_messages import MessageError

__all__ = (
    "MAX_DOCUMENT_BYTES",
    "document_descriptor",
    "empty_document_descriptor",
    "memory_descriptor",
    "read_document",
    "read_memory",
    "write_document",
)

MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024


def document_descriptor(document: Document) -> int:
    """Write a document where another process can read it; the caller closes the descriptor."""
    return memory_descriptor("vsockproxy-document", cbor2.dumps(document.to_builtins()))


def memory_descriptor(name: str, data: bytes) -> int:
    """Write bytes where another process can read them; the caller closes the descriptor."""
    descriptor = _empty_descriptor(name)
    try:
        _write_all(descriptor, data)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def empty_document_descriptor() -> int:
    """Room for a document that another process is to write; the caller closes the descriptor."""
    return _empty_descriptor("vsockproxy-document")


def write_document(descriptor: int, document: Document) -> None:
    """Write a document into an empty descriptor."""
    _write_all(descriptor, cbor2.dumps(document.to_builtins()))


def _empty_descriptor(name: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    import tempfile  # a Python that was built for an old C library

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write_all(descriptor: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], written)


def read_document(descriptor: int) -> Document:
    """Read what `document_descriptor` wrote; the descriptor stays open, and the caller's.

    Raises:
        MessageError: it holds no document.
    """
    data = read_memory(descriptor, MAX_DOCUMENT_BYTES)
    try:
        return Document.from_builtins(cbor2.loads(data))
    except (
        *(cbor2.CBORError, UnicodeError, ValueError, TypeError, KeyError),
        *(msgspec.ValidationError, AddressError),
    ) as error:
        raise MessageError(f"a document that cannot be read: {error}") from error


def read_memory(descriptor: int, most_bytes: int) -> bytes:
    """Read what another process wrote; the descriptor stays open, and the caller's.

    Raises:
        MessageError: it is more than `most_bytes`.
    """
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes > most_bytes:
        raise MessageError(f"a document of {size_bytes} bytes, more than {most_bytes}")
    # By position: processes that share the descriptor share its offset too.
    data = b""
    while len(data) < size_bytes and (piece := os.pread(descriptor, size_bytes, len(data))):
        data += piece
    return data
