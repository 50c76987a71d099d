"""HTTP/1.1 as a strict service reads it: complete requests out of a stream of bytes.

Nothing lenient: what two readers could understand differently is refused, so that a proxy in front
of the service cannot send it unnoticed.
"""

import re
from dataclasses import dataclass

MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 1024 * 1024

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t -~]*)?")


class BadRequest(Exception):
    """Bytes that are no request; the connection is closed."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request, whole."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    """In their order, with names in lower case."""
    body: bytes

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for found, value in self.fields if found == name]

    def value(self, name: str) -> str | None:
        """The value of a header that may come once.

        Raises:
            BadRequest: it came more often.
        """
        values = self.values(name)
        if len(values) > 1:
            raise BadRequest(f"{name} came {len(values)} times")
        return values[0] if values else None


class RequestReader:
    """Takes bytes as they come, and gives requests as they are complete."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._head: tuple[str, str, tuple[tuple[str, str], ...]] | None = None
        self._length: int | None = 0
        """None for a body in chunks."""
        self._body = bytearray()

    def receive(self, data: bytes) -> None:
        """Take bytes."""
        self._received += data

    @property
    def is_between(self) -> bool:
        """Whether nothing of a next request has come."""
        return self._head is None and not self._received

    def next_request(self) -> Request | None:
        """The next request; None if it is not complete.

        Raises:
            BadRequest: it is none.
        """
        if self._head is None and not self._read_head():
            return None
        assert self._head is not None
        if self._length is None:
            if not self._read_chunks():
                return None
        elif len(self._received) < self._length:
            return None
        else:
            self._body += self._received[: self._length]
            del self._received[: self._length]
        request = Request(*self._head, bytes(self._body))
        self._head = None
        self._body.clear()
        return request

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._received) > MAX_HEAD_BYTES):
            raise BadRequest("the head is too long")
        if end < 0:
            return False
        first, *lines = bytes(self._received[:end]).split(b"\r\n")
        del self._received[: end + 4]
        found = _REQUEST_LINE.fullmatch(first)
        if found is None:
            raise BadRequest("the request line")
        fields = []
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise BadRequest("a header")
            fields.append((field[1].decode().lower(), field[2].decode("latin-1")))
        self._head = (found[1].decode(), found[2].decode(), tuple(fields))
        self._length = self._body_length(fields)
        return True

    def _body_length(self, fields: list[tuple[str, str]]) -> int | None:
        lengths = [value for name, value in fields if name == "content-length"]
        codings = [value for name, value in fields if name == "transfer-encoding"]
        if len([name for name, _ in fields if name == "host"]) != 1:
            raise BadRequest("there must be one Host header")
        if codings:
            if codings != ["chunked"] or lengths:
                raise BadRequest("the framing of the body")
            return None
        if not lengths:
            return 0
        if len(lengths) > 1 or not re.fullmatch("[0-9]{1,12}", lengths[0], re.ASCII):
            raise BadRequest("Content-Length")
        if int(lengths[0]) > MAX_BODY_BYTES:
            raise BadRequest("the body is too long")
        return int(lengths[0])

    def _read_chunks(self) -> bool:
        while (end := self._received.find(b"\r\n")) >= 0:
            found = _CHUNK.fullmatch(self._received[:end])
            if found is None:
                raise BadRequest("a chunk")
            size = int(found[1], 16)
            if size + len(self._body) > MAX_BODY_BYTES:
                raise BadRequest("the body is too long")
            whole = end + 2 + size + 2
            if len(self._received) < whole:
                return False
            if self._received[whole - 2 : whole] != b"\r\n":
                raise BadRequest("a chunk or trailers")
            self._body += self._received[end + 2 : whole - 2]
            del self._received[:whole]
            if size == 0:
                return True
        return False
