"""Collects the head of one HTTP/1 message and refuses, byte for byte, what h11 is lenient about.

h11 accepts bare LF, unfolds obs-fold and measures only incomplete heads. Two readers of such a head
can disagree about where a line ends, which is how requests are smuggled (RFC 9112, section 11.2).
And its pattern for a header line takes time quadratic in a run of spaces before a VT or FF (0.9 s
for 16 KiB). So a head reaches h11 whole, bounded and free of these.

Whatever the pieces, the outcome is the one that the first offending byte decides.
"""

import re
from typing import Final

import h11

from vsockproxy.protocols.errors import HeadError, HttpRequestError

MAX_FRAMING_BYTES: Final = 2048
"""Of one chunk header or trailer section that h11 waits for, and of the pieces it is fed in.

h11 takes time quadratic in their length to refuse some of them. Together the two bound it at 4 KiB,
which is 50 ms; a piece of 64 KiB would block everybody for 15 s. Between 2 and 4 KiB it depends on
the pieces whether they are taken; real ones have tens of bytes."""

_END_OF_HEAD = b"\r\n\r\n"
_FORBIDDEN = re.compile(rb"[\x00\x0b\x0c]|(?<!\r)\n|\r(?!\n|\Z)|\n[ \t]")
"""NUL, VT, FF, LF without CR, CR without LF (unless it is still to come), obs-fold."""
_QUOTED_BYTES = re.compile(r": (?:bytearray\()?b['\"].*", re.DOTALL)


class HeadReader:
    """Reads one head.

    Args:
        max_bytes: the largest head, blank line included.
        max_headers: the most header lines.
    """

    __slots__ = ("_buffer", "_max_bytes", "_max_headers", "_scanned")

    def __init__(self, max_bytes: int, max_headers: int) -> None:
        self._max_bytes = max_bytes
        self._max_headers = max_headers
        self._buffer = bytearray()
        self._scanned = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come."""
        return not self._buffer

    def receive(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take the next bytes; returns the head with its blank line and what follows it, or None.

        Raises:
            HeadError: the head is malformed or too large; the reader is of no further use.
        """
        buffer = self._buffer
        taken = self._max_bytes - len(buffer)
        buffer += data[:taken]
        found = buffer.find(_END_OF_HEAD, max(0, self._scanned - len(_END_OF_HEAD) + 1))
        end = len(buffer) if found < 0 else found + len(_END_OF_HEAD)
        # One byte back: a CR or LF at the end of the last piece is judged by what follows it.
        if _FORBIDDEN.search(buffer, max(0, self._scanned - 1), end):
            raise HeadError("a control character, a folded line, or a line that ends without CRLF")
        if found >= 0:
            if buffer.count(b"\r\n", 0, found) > self._max_headers:
                raise HeadError(f"more than {self._max_headers} headers", is_too_large=True)
            return bytes(buffer[:end]), bytes(buffer[end:]) + data[taken:]
        if len(buffer) == self._max_bytes:
            raise HeadError(f"a head of more than {self._max_bytes} bytes", is_too_large=True)
        self._scanned = len(buffer)
        return None


def receive_request(reader: HeadReader, data: bytes) -> tuple[h11.Request, bytes, bytes] | None:
    """Take the next bytes of a request; None while its head is incomplete.

    Returns:
        The request, its head as it came, and what follows that.

    Raises:
        HttpRequestError: it is no request of HTTP/1; the reader is of no further use.
    """
    try:
        parts = reader.receive(data)
    except HeadError as error:
        raise head_refused(error) from None
    if parts is None:
        return None
    head, following = parts
    return parse_request(head), head, following


def parse_request(head: bytes) -> h11.Request:
    """Parse a head that a `HeadReader` has let pass.

    Raises:
        HttpRequestError: it is no request of HTTP/1.
    """
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise HttpRequestError(error.error_status_hint, without_quotes(error)) from None
    assert isinstance(request, h11.Request), "a whole head is a request or an error"
    if request.http_version not in (b"1.0", b"1.1"):
        raise HttpRequestError(505, "only HTTP/1.1 is spoken here")
    return request


def head_refused(error: HeadError) -> HttpRequestError:
    """What a client is told whose request has such a head."""
    return HttpRequestError(431 if error.is_too_large else 400, error.text)


def header(message: h11.Request | h11.Response, name: bytes) -> bytes | None:
    """The value of the first header `name` (lower case), None without one."""
    return next((value for found, value in message.headers if found == name), None)


def connection_options(
    message: h11.Request | h11.InformationalResponse | h11.Response,
) -> set[bytes]:
    """What its Connection headers name, in lower case (RFC 9110, section 7.6.1)."""
    return {
        option.strip().lower()
        for name, value in message.headers
        if name == b"connection"
        for option in value.split(b",")
    }


def is_kept_alive(message: h11.Request | h11.Response) -> bool:
    """Whether its sender will take, or make, another exchange (RFC 9112, section 9.3)."""
    return message.http_version == b"1.1" and b"close" not in connection_options(message)


def without_quotes(error: h11.ProtocolError) -> str:
    """What h11 found wrong, without the bytes it quotes (they may be credentials)."""
    return _QUOTED_BYTES.sub("", str(error))
