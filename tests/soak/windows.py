"""When something was being done to the pair: what ended badly within such a time is no fault."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator


class FaultWindows:
    """The times of all faults, from the blow until everything is served again."""

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()
        """How many of each kind."""
        self.longest_seconds: dict[str, float] = {}
        """How long it took at most until all was served again."""
        self._lock = threading.Lock()
        self._closed: list[tuple[float, float]] = []
        self._open_since: float | None = None

    @contextlib.contextmanager
    def open(self, kind: str) -> Iterator[None]:
        """A fault happens in the body, and is over at its end; one at a time."""
        began = time.monotonic()
        with self._lock:
            self._open_since = began
        try:
            yield
        finally:
            ended = time.monotonic()
            with self._lock:
                self._open_since = None
                self._closed.append((began, ended))
                self.injected[kind] += 1
                lasted = round(ended - began, 1)
                self.longest_seconds[kind] = max(self.longest_seconds.get(kind, 0), lasted)

    def touch(self, began: float, ended: float) -> bool:
        """Whether a fault was under way at some time between two times."""
        with self._lock:
            if self._open_since is not None and self._open_since <= ended:
                return True
            return any(first <= ended and began <= last for first, last in self._closed)
