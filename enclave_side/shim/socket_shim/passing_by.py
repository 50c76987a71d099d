"""Says that a program has imported what makes its connections in C, where the shim sees nothing."""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

from enclave_side.shim.socket_shim.stderr_lines import write_line

__all__ = ("ImportWatch", "watch_imports")

PASSING_BY: Final = {
    "uvloop": "use asyncio's own loop",
    "gevent": "use threads or asyncio",
}
"""Packages that take over all networking of a program, and what to do instead."""


class ImportWatch:
    """A finder that finds nothing, and says who is looked for."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        """Called by `import` for each module that is not loaded yet."""
        mend = PASSING_BY.get(fullname)
        if mend is not None and fullname not in self._said:
            self._said.add(fullname)
            write_line(
                f"{fullname} connects in C, past the socket shim: {mend}, "
                "or a way in that needs no shim"
            )


def watch_imports() -> None:
    """Watch from now on."""
    sys.meta_path.insert(0, ImportWatch())
