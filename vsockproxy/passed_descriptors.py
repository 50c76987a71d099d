"""Descriptors that travel with a message, and memory that they can be of; `worker_messages`."""

import os
import socket
from array import array
from collections.abc import Iterable, Sequence

__all__ = ("ancillary_of", "descriptors_in", "empty_memory", "memory_descriptor", "write_memory")

# socket.send_fds and socket.recv_fds of Python 3.11 drop their flags, without which descriptors
# would stay open at exec.


def ancillary_of(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """What sendmsg takes to pass descriptors."""
    if not descriptors:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors).tobytes())]


def descriptors_in(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[int, ...]:
    """The descriptors in what recvmsg gives, which are the caller's."""
    found = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return tuple(found)


def memory_descriptor(name: str, data: bytes) -> int:
    """Write bytes where another process can read them; the caller closes the descriptor."""
    descriptor = empty_memory(name)
    try:
        write_memory(descriptor, data)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def empty_memory(name: str) -> int:
    """Memory that another process can write and read; the caller closes the descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    import tempfile  # a Python that was built for an old C library

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write_memory(descriptor: int, data: bytes) -> None:
    """Write bytes from the beginning on, by position."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], written)
