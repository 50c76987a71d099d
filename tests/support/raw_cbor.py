"""CBOR by hand (RFC 8949, section 3), for what no encoder writes."""

from collections.abc import Mapping

import cbor2

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
"""Major types."""

BREAK = b"\xff"


def head(major: int, argument: int, *, size: int | None = None) -> bytes:
    """The head of an item; `size` is how many bytes its argument takes, if not the fewest."""
    if size is None and argument < 24:
        return bytes((major << 5 | argument,))
    if size is None:
        size = next(size for size in (1, 2, 4, 8) if argument < 1 << 8 * size)
    return bytes((major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size],)) + argument.to_bytes(size)


def begin(major: int) -> bytes:
    """The head of an item of indefinite length."""
    return bytes((major << 5 | 31,))


def tagged(tag: int, item: bytes) -> bytes:
    """An item behind a tag."""
    return head(TAG, tag) + item


def array(*items: bytes) -> bytes:
    """An array of encoded items."""
    return head(ARRAY, len(items)) + b"".join(items)


def pairs(*items: tuple[bytes, bytes]) -> bytes:
    """A map of encoded keys and values, as they are: twice the same key, too."""
    return head(MAP, len(items)) + b"".join(key + value for key, value in items)


def indefinite_map(fields: Mapping[str, object]) -> bytes:
    """A map of indefinite length, as newer hardware writes the payload."""
    items = (cbor2.dumps(key) + cbor2.dumps(value) for key, value in fields.items())
    return begin(MAP) + b"".join(items) + BREAK


def indefinite_throughout(value: object) -> bytes:
    """A value whose arrays, maps and strings all have indefinite length."""
    if isinstance(value, dict):
        inner = b"".join(indefinite_throughout(item) for pair in value.items() for item in pair)
        return begin(MAP) + inner + BREAK
    if isinstance(value, list):
        return begin(ARRAY) + b"".join(map(indefinite_throughout, value)) + BREAK
    if isinstance(value, bytes):
        chunks = (value[:3], value[3:])
        return begin(BYTES) + b"".join(cbor2.dumps(chunk) for chunk in chunks) + BREAK
    if isinstance(value, str):
        return begin(TEXT) + cbor2.dumps(value) + BREAK
    return cbor2.dumps(value)
