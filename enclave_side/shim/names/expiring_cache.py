"""What is known until a moment, and no more of it than there is room for. Pure."""

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ("ExpiringCache",)

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ExpiringCache(Generic[Key, Value]):
    """Values that expire; when the room is used up, the one that was put in first has to go.

    Args:
        capacity: how many values at most.
    """

    __slots__ = ("_capacity", "_entries")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: dict[Key, tuple[Value, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> Value | None:
        """The value, unless there is none or its time has come."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry[1]:
            del self._entries[key]
            return None
        return entry[0]

    def put(self, key: Key, value: Value, expires: float) -> None:
        """Keep `value` until `expires`, in place of what was there."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (value, expires)
