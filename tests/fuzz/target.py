"""What is fuzzed: a parser, bytes to begin with, and what must hold for every input.

The invariant of every target: **a parser ends in a value, in "more", or in one documented error,
whatever the bytes and however they are cut into pieces; and its memory stays bounded.**
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

KIBIBYTE = 1024

MEMORY_OF_A_HEAD = 300
"""What h11's patterns for a line use for each of its bytes, for the time they match it."""

Result = TypeVar("Result")

Execute = Callable[[bytes], str]
Cut = Callable[[bytes], list[bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """One parser under test.

    `execute` runs it on one input and returns how that ended, in a few words: `more`, `value`, or
    the documented error. It raises whatever breaks the invariant.
    """

    name: str
    execute: Execute
    corpus: tuple[bytes, ...]
    """Inputs to begin with, valid ones above all."""
    dictionary: tuple[bytes, ...] = ()
    """What the format is made of; mutations put it in."""
    most_memory_bytes: int = 512 * KIBIBYTE
    """Peak of an execution on an empty input."""
    most_memory_factor: int = 30
    """Bytes more for each byte of the input: several copies, and objects that point at them."""


MOST_PIECES = 200
"""In the mean, for a long input: a million reads of one byte each find no more, and take longer."""


def in_pieces(data: bytes) -> list[bytes]:
    """Cut `data` as its own checksum says: the same input is always cut alike."""
    choice = random.Random(zlib.crc32(data))
    pieces = []
    position = 0
    longest = max(choice.choice((1, 2, 7, 100, 5000)), 2 * len(data) // MOST_PIECES)
    while position < len(data):
        size = choice.randint(1, longest)
        pieces.append(data[position : position + size])
        position += size
    return pieces


def whole(data: bytes) -> list[bytes]:
    """Do not cut `data`."""
    return [data]


def same_however_cut(read: Callable[[Cut], Result]) -> Result:
    """What `read` makes of whole inputs, having made the same of pieces.

    Raises:
        AssertionError: the pieces change what comes out.
    """
    of_whole = read(whole)
    of_pieces = read(in_pieces)
    assert of_whole == of_pieces, f"whole: {of_whole!r:.300}, in pieces: {of_pieces!r:.300}"
    return of_whole
