"""A server that speaks PostgreSQL's protocol well enough for psql, and one query's answer.

TLS begins only after the server has answered SSLRequest with one byte, so a stream to it does not
begin with a ClientHello (PostgreSQL's documentation, "Frontend/Backend Protocol"). To `SELECT
'text'` the answer is the text, to any other query the query itself.
"""

import re
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.pair import serving

USER = "enclave"
PASSWORD = "not a secret"  # a test's

_SSL_REQUEST = 80_877_103
_GSS_ENCRYPTION_REQUEST = 80_877_104
_PROTOCOL_3_0 = 196_608
_TEXT_TYPE = 25
_LENGTH = struct.Struct("!I")
_PARAMETERS = {
    "server_version": "15.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
}


@contextmanager
def postgres_like(context: ssl.SSLContext, *, begins_with_tls: bool = False) -> Iterator[int]:
    """Serve on loopback; gives the port.

    Args:
        context: for TLS.
        begins_with_tls: whether there is TLS from the first byte, and no SSLRequest.
    """

    def handle(connection: socket.socket) -> None:
        if begins_with_tls:
            with context.wrap_socket(connection, server_side=True) as sock:
                _serve_inside(sock)
        else:
            _serve(connection, context)

    with serving(handle) as port:
        yield port


def _serve(connection: socket.socket, context: ssl.SSLContext) -> None:
    code, _ = _read_start(connection)
    while code == _GSS_ENCRYPTION_REQUEST:
        connection.sendall(b"N")
        code, _ = _read_start(connection)
    assert code == _SSL_REQUEST, code
    connection.sendall(b"S")
    with context.wrap_socket(connection, server_side=True) as sock:
        _serve_inside(sock)


def _serve_inside(sock: ssl.SSLSocket) -> None:
    """Serve a client that has begun TLS."""
    code, rest = _read_start(sock)
    assert code == _PROTOCOL_3_0, code
    words = rest.split(b"\0")
    asked = dict(zip(words[::2], words[1::2], strict=False))
    sock.sendall(_message(b"R", _LENGTH.pack(3)))  # AuthenticationCleartextPassword
    kind, password = _read_message(sock)
    if (kind, asked[b"user"], password) != (b"p", USER.encode(), PASSWORD.encode() + b"\0"):
        sock.sendall(_message(b"E", b"SFATAL\0C28P01\0Mwrong user or password\0\0"))
        return
    sock.sendall(
        _message(b"R", _LENGTH.pack(0))
        + b"".join(
            _message(b"S", f"{key}\0{value}\0".encode()) for key, value in _PARAMETERS.items()
        )
        + _message(b"Z", b"I")
    )
    while True:
        kind, body = _read_message(sock)
        if kind != b"Q":  # X, the end
            return
        query = body.removesuffix(b"\0")
        found = re.fullmatch(rb"SELECT '([^']*)'", query)
        sock.sendall(_row(found[1] if found else query))


def _row(value: bytes) -> bytes:
    field = b"answer\0" + struct.pack("!IhIhih", 0, 0, _TEXT_TYPE, -1, -1, 0)
    return (
        _message(b"T", struct.pack("!h", 1) + field)
        + _message(b"D", struct.pack("!hI", 1, len(value)) + value)
        + _message(b"C", b"SELECT 1\0")
        + _message(b"Z", b"I")
    )


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + _LENGTH.pack(len(body) + _LENGTH.size) + body


def _read_start(sock: socket.socket) -> tuple[int, bytes]:
    """A message from before the start-up is over, which has no kind: its code, and the rest."""
    body = _read_body(sock)
    return _LENGTH.unpack_from(body)[0], body[_LENGTH.size :]


def _read_message(sock: socket.socket) -> tuple[bytes, bytes]:
    kind = _read_exactly(sock, 1)
    return kind, _read_body(sock)


def _read_body(sock: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_read_exactly(sock, _LENGTH.size))
    return _read_exactly(sock, length - _LENGTH.size)


def _read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the client has gone")
        data += piece
    return data
