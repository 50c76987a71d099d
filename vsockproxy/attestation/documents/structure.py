"""Whether bytes are one well-formed CBOR item (RFC 8949) without tags, before they are decoded.

The decoder that makes values of them understands tags: a bignum becomes an int, a shared reference
vanishes or makes a circle. So no tag ever reaches it, and neither does a length without the bytes
to it: nothing is allocated for what is not there.
"""

from typing import Any, Final

import cbor2

from vsockproxy.attestation.documents.refusal import DocumentRefused, Reason

__all__ = ("MAX_DEPTH", "decode")

MAX_DEPTH: Final = 8
"""Arrays and maps inside each other; a document has three levels at most."""

_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = 2, 3, 4, 5, 6, 7
"""Major types, RFC 8949 section 3.1."""

_ONE_BYTE: Final = 24
_EIGHT_BYTES: Final = 27
_INDEFINITE: Final = 31
"""Additional information: where the argument is."""

_FIRST_LONG_SIMPLE: Final = 32
_BREAK: Final = b"\xff"


def decode(data: bytes, what: str, *, start: int = 0) -> Any:
    """The value of the one item that `data` holds from `start` on.

    Args:
        data: all of the bytes.
        what: what they should be, for the text of a refusal.
        start: where the item begins.

    Raises:
        DocumentRefused: they are not exactly one well-formed item; or a tag is in it; or a map has
            a key twice.
    """
    end = _Scanner(data, start, what).scan()
    if end != len(data):
        raise DocumentRefused(
            Reason.TRAILING_BYTES, f"{len(data) - end} bytes stand behind the {what}"
        )
    item = data[start:]
    try:
        return cbor2.loads(item, max_depth=MAX_DEPTH, allow_duplicate_keys=False)
    except (cbor2.CBORError, UnicodeError, ValueError, TypeError):
        raise _not_decoded(item, what) from None


def _not_decoded(item: bytes, what: str) -> DocumentRefused:
    """The refusal of a well-formed item that has no value: a key is there twice, or no UTF-8."""
    try:
        cbor2.loads(item, max_depth=MAX_DEPTH)
    except (cbor2.CBORError, UnicodeError, ValueError, TypeError):
        return DocumentRefused(Reason.MALFORMED_CBOR, f"the {what} has no value: bad UTF-8?")
    return DocumentRefused(Reason.DUPLICATE_KEY, f"a map in the {what} has a key twice")


class _Scanner:
    """Walks over one item without making values of it."""

    __slots__ = ("_data", "_position", "_what")

    def __init__(self, data: bytes, start: int, what: str) -> None:
        self._data = data
        self._position = start
        self._what = what

    def scan(self) -> int:
        """Walk over one item; returns where it ends."""
        self._item(0)
        return self._position

    def _item(self, depth: int) -> None:
        major, info = self._head()
        if major == _TAG:
            raise self._refusal(Reason.UNEXPECTED_TAG, "has a tag inside")
        if info == _INDEFINITE:
            self._indefinite(major, depth)
            return
        argument = self._argument(info)
        if major in (_BYTES, _TEXT):
            self._skip(argument)
        elif major in (_ARRAY, _MAP):
            self._items(argument if major == _ARRAY else 2 * argument, self._inside(depth))
        elif major == _SIMPLE and info == _ONE_BYTE and argument < _FIRST_LONG_SIMPLE:
            raise self._refusal(Reason.MALFORMED_CBOR, "has a short simple value in two bytes")

    def _items(self, count: int, depth: int) -> None:
        # Each item has a byte at least: more items than bytes is a lie, told before they are read.
        if count > len(self._data) - self._position:
            raise self._truncated()
        for _ in range(count):
            self._item(depth)

    def _indefinite(self, major: int, depth: int) -> None:
        """An item of indefinite length, up to its break (section 3.2)."""
        if major in (_BYTES, _TEXT):
            while not self._break():
                chunk, info = self._head()
                if chunk != major or info == _INDEFINITE:
                    raise self._refusal(Reason.MALFORMED_CBOR, "has a string of other things")
                self._skip(self._argument(info))
        elif major in (_ARRAY, _MAP):
            inside = self._inside(depth)
            while not self._break():
                self._items(1 if major == _ARRAY else 2, inside)
        else:
            raise self._refusal(Reason.MALFORMED_CBOR, "has an end without a beginning")

    def _inside(self, depth: int) -> int:
        if depth == MAX_DEPTH:
            raise self._refusal(Reason.NESTED_TOO_DEEP, f"has more than {MAX_DEPTH} levels")
        return depth + 1

    def _head(self) -> tuple[int, int]:
        """Major type and additional information of the next item."""
        start = self._position
        self._skip(1)
        return self._data[start] >> 5, self._data[start] & 0x1F

    def _argument(self, info: int) -> int:
        """The number that a head stands for: itself, or in the bytes behind it."""
        if info < _ONE_BYTE:
            return info
        if info > _EIGHT_BYTES:
            raise self._refusal(Reason.MALFORMED_CBOR, f"has the reserved length {info}")
        start = self._position
        self._skip(1 << (info - _ONE_BYTE))
        return int.from_bytes(self._data[start : self._position], "big")

    def _break(self) -> bool:
        """Take the end of an item of indefinite length, if it is next."""
        is_next = self._data[self._position : self._position + 1] == _BREAK
        self._position += is_next
        return is_next

    def _skip(self, length: int) -> None:
        if length > len(self._data) - self._position:
            raise self._truncated()
        self._position += length

    def _truncated(self) -> DocumentRefused:
        return self._refusal(Reason.TRUNCATED, f"ends after {len(self._data)} bytes, in the middle")

    def _refusal(self, reason: Reason, predicate: str) -> DocumentRefused:
        return DocumentRefused(reason, f"the {self._what} {predicate}")
