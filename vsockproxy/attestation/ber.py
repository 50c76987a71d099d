"""Reads BER (X.690) that may be nested with indefinite lengths, one known element after another.

There is no tree: the reader of a format says which tag it expects next, so that nothing recurses
and nothing is allocated that the format does not have.
"""

from typing import Final

from vsockproxy.errors import VsockproxyError

__all__ = ("BerError", "BerReader")

_INDEFINITE: Final = 0x80
_CONSTRUCTED: Final = 0x20
_HIGH_TAG: Final = 0x1F
_MAX_LENGTH_BYTES: Final = 4


class BerError(VsockproxyError):
    """Bytes that are not the elements that were expected."""


class BerReader:
    """Reads `data` from its beginning.

    Enter a constructed element, read what it holds, and leave it; `finish` at the end. After an
    error the reader is not to be used again.

    Args:
        data: everything, at most as long as its format may be; the caller looks to that.
    """

    __slots__ = ("_data", "_ends", "_limit", "_limits", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._ends: list[int | None] = []
        """Where each entered element ends; None where its end will be marked."""
        self._limit = len(data)
        """Where the innermost element ends that has a length."""
        self._limits: list[int] = []
        """What the limit was outside each entered element."""

    def enter(self, tag: int, name: str) -> None:
        """Go into the constructed element that comes next.

        Args:
            tag: its identifier octet, of a tag number below 31.
            name: of the element, for the text of an error.

        Raises:
            BerError: another element comes, or its length is wrong.
        """
        end = self._header(tag, name)
        self._ends.append(end)
        self._limits.append(self._limit)
        if end is not None:
            self._limit = end

    def leave(self, name: str) -> None:
        """Leave the element that was entered last.

        Raises:
            BerError: there is more in it.
        """
        if not self.at_end():
            raise BerError(f"{name} holds more than it should")
        self._limit = self._limits.pop()
        if self._ends.pop() is None:
            self._position += 2

    def primitive(self, tag: int, name: str) -> bytes:
        """The content of the primitive element that comes next.

        Raises:
            BerError: another element comes, or its length is wrong.
        """
        end = self._header(tag, name)
        assert end is not None  # only constructed elements may be without a length
        content = self._data[self._position : end]
        self._position = end
        return content

    def at_end(self) -> bool:
        """Whether the element that was entered last holds nothing more.

        Raises:
            BerError: the data has ended.
        """
        end = self._ends[-1]
        if end is not None:
            return self._position == end
        return self._peek(2) == b"\0\0"

    def next_is(self, tag: int) -> bool:
        """Whether the next element in what was entered has this identifier octet.

        Raises:
            BerError: the data has ended.
        """
        return not self.at_end() and self._data[self._position] == tag

    def finish(self, name: str) -> None:
        """Check that nothing is left.

        Raises:
            BerError: there is more.
        """
        if self._position != len(self._data):
            raise BerError(f"bytes follow {name}")

    def _peek(self, count: int) -> bytes:
        if self._limit - self._position < count:
            raise BerError("it is cut off")
        return self._data[self._position : self._position + count]

    def _take(self) -> int:
        position = self._position
        if position >= self._limit:
            raise BerError("it is cut off")
        self._position = position + 1
        return self._data[position]

    def _header(self, tag: int, name: str) -> int | None:
        """Read a header; where its content ends, None if that is marked at the end."""
        assert tag & _HIGH_TAG != _HIGH_TAG
        found = self._take()
        if found != tag:
            raise BerError(f"{name} should begin with {tag:02x}, not {found:02x}")
        length = self._take()
        if length == _INDEFINITE:
            if not tag & _CONSTRUCTED:
                raise BerError(f"{name} is primitive and has no length")
            return None
        if length & 0x80:
            count = length & 0x7F
            if count > _MAX_LENGTH_BYTES:
                raise BerError(f"the length of {name} has {count} bytes")
            length = 0
            for _ in range(count):
                length = length << 8 | self._take()
        end = self._position + length
        if end > self._limit:
            raise BerError(f"{name} is longer than what it is in")
        return end
