"""Changes inputs at random, from a seed: the same seed makes the same inputs."""

import random
from collections.abc import Sequence

MAX_INPUT_BYTES = 64 * 1024
"""As much as one read from a socket brings; longer mutants are cut off."""

_EDGES = (0, 1, 0x0A, 0x0D, 0x20, 0x7F, 0x80, 0xFE, 0xFF)


class Mutator:
    """Makes inputs out of a pool of others.

    Args:
        choice: where all chance comes from.
        dictionary: pieces of the format.
    """

    def __init__(self, choice: random.Random, dictionary: Sequence[bytes]) -> None:
        self._choice = choice
        self._dictionary = dictionary or (b"\x00",)
        self._changes = (
            self._set_byte,
            self._flip_bit,
            self._delete,
            self._repeat,
            self._insert_random,
            self._insert_piece,
            self._replace_by_piece,
            self._cut_off,
        )

    def mutate(self, pool: Sequence[bytes]) -> bytes:
        """One input: one of the pool, sometimes joined with another, changed a few times."""
        choice = self._choice
        data = bytearray(choice.choice(pool))
        if choice.random() < 0.2:
            other = choice.choice(pool)
            data[self._position(data) :] = other[choice.randint(0, len(other)) :]
        for _ in range(choice.choice((1, 1, 2, 3, 5, 10))):
            choice.choice(self._changes)(data)
        return bytes(data[:MAX_INPUT_BYTES])

    def _position(self, data: bytearray) -> int:
        return self._choice.randint(0, len(data))

    def _span(self, data: bytearray) -> slice:
        start = self._position(data)
        return slice(start, start + self._choice.choice((1, 1, 2, 4, 16, 100)))

    def _set_byte(self, data: bytearray) -> None:
        value = self._choice.choice((*_EDGES, self._choice.randrange(256)))
        if data:
            data[self._choice.randrange(len(data))] = value

    def _flip_bit(self, data: bytearray) -> None:
        if data:
            data[self._choice.randrange(len(data))] ^= 1 << self._choice.randrange(8)

    def _delete(self, data: bytearray) -> None:
        del data[self._span(data)]

    def _repeat(self, data: bytearray) -> None:
        span = self._span(data)
        times = self._choice.choice((1, 1, 2, 10, 300))
        data[span.start : span.start] = data[span] * times

    def _insert_random(self, data: bytearray) -> None:
        position = self._position(data)
        data[position:position] = self._choice.randbytes(self._choice.choice((1, 2, 4, 20)))

    def _insert_piece(self, data: bytearray) -> None:
        position = self._position(data)
        data[position:position] = self._choice.choice(self._dictionary)

    def _replace_by_piece(self, data: bytearray) -> None:
        piece = self._choice.choice(self._dictionary)
        position = self._position(data)
        data[position : position + len(piece)] = piece

    def _cut_off(self, data: bytearray) -> None:
        del data[self._position(data) :]
