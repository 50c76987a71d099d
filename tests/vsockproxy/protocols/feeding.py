"""Three ways to bring the same bytes to a reader."""

from collections.abc import Callable, Iterator

import pytest

Feed = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for position in range(len(data)):
        yield data[position : position + 1]


def in_threes(data: bytes) -> Iterator[bytes]:
    for position in range(0, len(data), 3):
        yield data[position : position + 3]


every_feed = pytest.mark.parametrize("feed", [whole, byte_by_byte, in_threes])
