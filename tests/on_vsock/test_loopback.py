"""The vsock itself behaves as the byte path takes for granted; nothing of ours takes part."""

import errno
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.on_vsock.machine.loopback import LOOPBACK_CID

BUFFER_BYTES = 4 * 1024 * 1024
REPLY_SECONDS = 30.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listener on a port that the kernel chose."""
    with socket.socket(socket.AF_VSOCK) as listening:
        listening.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listening.listen()
        listening.settimeout(REPLY_SECONDS)
        yield listening


def dial(listener: socket.socket) -> socket.socket:
    """A connection to `listener` through the kernel's loopback."""
    connection = socket.socket(socket.AF_VSOCK)
    connection.settimeout(REPLY_SECONDS)
    connection.connect((LOOPBACK_CID, listener.getsockname()[1]))
    return connection


def test_bytes_come_back_and_half_close_is_seen(listener: socket.socket) -> None:
    with closing(dial(listener)) as near, closing(listener.accept()[0]) as far:
        far.settimeout(REPLY_SECONDS)
        near.sendall(b"there")
        near.shutdown(socket.SHUT_WR)
        assert far.recv(64) == b"there"
        assert far.recv(64) == b""
        far.sendall(b"and back")
        assert near.recv(64) == b"and back"


def test_the_peer_of_a_connection_is_the_loopback(listener: socket.socket) -> None:
    with closing(dial(listener)) as near:
        far, (cid, _port) = listener.accept()
        far.close()
        assert cid == LOOPBACK_CID
        assert near.getpeername() == (LOOPBACK_CID, listener.getsockname()[1])


def test_a_buffer_grows_only_below_a_maximum_that_was_raised_first() -> None:
    with socket.socket(socket.AF_VSOCK) as unbound:
        size, most = socket.SO_VM_SOCKETS_BUFFER_SIZE, socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE
        unbound.setsockopt(socket.AF_VSOCK, size, BUFFER_BYTES)
        assert unbound.getsockopt(socket.AF_VSOCK, size) < BUFFER_BYTES
        unbound.setsockopt(socket.AF_VSOCK, most, BUFFER_BYTES)
        unbound.setsockopt(socket.AF_VSOCK, size, BUFFER_BYTES)
        assert unbound.getsockopt(socket.AF_VSOCK, size) == BUFFER_BYTES


def test_an_accepted_connection_has_the_buffer_of_its_listener(listener: socket.socket) -> None:
    listener.setsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE, BUFFER_BYTES)
    listener.setsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE, BUFFER_BYTES)
    with closing(dial(listener)), closing(listener.accept()[0]) as far:
        assert far.getsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE) == BUFFER_BYTES


def test_a_port_without_a_listener_answers_connection_reset(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with socket.socket(socket.AF_VSOCK) as near:
        near.settimeout(REPLY_SECONDS)
        assert near.connect_ex((LOOPBACK_CID, port)) == errno.ECONNRESET
