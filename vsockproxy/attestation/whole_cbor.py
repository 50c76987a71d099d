"""One item of CBOR that is all of some bytes, as a peer or a file gives them."""

from io import BytesIO
from typing import Any, Final

import cbor2

__all__ = ("decode_whole",)

MAX_DEPTH: Final = 8


def decode_whole(data: bytes) -> Any:
    """The one item of CBOR that `data` is.

    Raises:
        ValueError: it is none, or something follows, or a map has a key twice.
    """
    file = BytesIO(data)
    try:
        content = cbor2.CBORDecoder(file, allow_duplicate_keys=False, max_depth=MAX_DEPTH).decode()
    except (cbor2.CBORError, UnicodeError, RecursionError, TypeError, OverflowError) as error:
        raise ValueError("no CBOR") from error
    if file.tell() != len(data):
        raise ValueError(f"{len(data) - file.tell()} bytes after its CBOR")
    return content
