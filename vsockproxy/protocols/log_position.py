"""The parent's end of `vsockproxy.log`: what of an enclave's records is written already. Pure."""

import json
from dataclasses import replace
from typing import Final

from vsockproxy.protocols.errors import LogStreamError
from vsockproxy.protocols.log_stream import Dropped, Record

__all__ = ("LogPosition", "readable_pieces")

_ESCAPED_CHARACTER_BYTES: Final = 12
"""The longest that JSON makes of one character: two surrogates of six."""


class LogPosition:
    """The position in the log of one life of an enclave, through all the streams that carry it."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next: int | None = None

    @property
    def next(self) -> int:
        """The number of the first record that is not written; 0 if nothing is known."""
        return self._next or 0

    def unwritten(self, record: Record) -> Record | None:
        """What of a record is still to be written; None if it is written already.

        The first record of all may have any number: this process may have been started later than
        the enclave.

        Raises:
            LogStreamError: records before it are missing, and nothing said that they are lost.
        """
        expected = self._next
        if expected is None or record.sequence == expected:
            return record
        if record.sequence > expected:
            raise LogStreamError(f"record {record.sequence} follows {expected - 1}")
        if isinstance(record, Dropped) and record.sequence + record.count > expected:
            count = record.sequence + record.count - expected
            return replace(record, sequence=expected, count=count)
        return None

    def written(self, record: Record) -> None:
        """A record that `unwritten` returned is written."""
        self._next = record.sequence + (record.count if isinstance(record, Dropped) else 1)


def readable_pieces(text: bytes, most_bytes: int) -> list[str]:
    r"""A line of any bytes as text, in pieces that take at most `most_bytes` each as JSON.

    What is no UTF-8 is shown as `\xNN`. No piece is longer as UTF-8 than as JSON.
    """
    return _parted(text.decode("utf-8", "backslashreplace"), most_bytes)


def _parted(text: str, most_bytes: int) -> list[str]:
    is_short = len(text) * _ESCAPED_CHARACTER_BYTES + 2 <= most_bytes
    if is_short or len(json.dumps(text)) <= most_bytes:
        return [text]
    middle = len(text) // 2
    return [*_parted(text[:middle], most_bytes), *_parted(text[middle:], most_bytes)]
