"""Packages that go past Python's sockets: what can be led back is, of others a line says so."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import MappingProxyType, ModuleType
from typing import Final

from enclave_side.shim.socket_shim.stderr_lines import write_line

__all__ = ("PASSING_BY", "ImportWatch", "watch_imports")

PASSING_BY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "uvloop": "use asyncio's own loop",
        "gevent": "use threads or asyncio",
    }
)
"""Packages that take over all connections of a program, and what to do instead."""


def _use_system_resolver(module: ModuleType) -> None:
    """Where c-ares is installed, aiohttp looks names up with it; elsewhere it asks `socket`."""
    if "ThreadedResolver" in module.__dict__:
        module.__dict__["DefaultResolver"] = module.__dict__["ThreadedResolver"]


_LED_BACK: Final[Mapping[str, Callable[[ModuleType], None]]] = MappingProxyType(
    {"aiohttp.resolver": _use_system_resolver}
)
"""Modules, and what is done to them once they have run."""


class ImportWatch:
    """The first finder that `import` asks.

    Args:
        say: writes a line.
    """

    def __init__(self, say: Callable[[str], None] = write_line) -> None:
        self._say = say
        self._said: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is led back; of all others, let the next finder do so.

        Called for each module that is not loaded yet.
        """
        if fullname in PASSING_BY and fullname not in self._said:
            self._said.add(fullname)
            self._say(
                f"{fullname} connects in C, past the socket shim: {PASSING_BY[fullname]}, "
                "or a way in that needs no shim"
            )
        lead_back = _LED_BACK.get(fullname)
        return None if lead_back is None else _found(fullname, path, target, lead_back)


def _found(
    fullname: str,
    path: Sequence[str] | None,
    target: ModuleType | None,
    then: Callable[[ModuleType], None],
) -> ModuleSpec | None:
    """Find a module as usual, and have `then` done to it once it has run."""
    spec = PathFinder.find_spec(fullname, path, target)
    if spec is None or spec.loader is None:
        return None
    execute = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        then(module)

    spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one loader
    return spec


def watch_imports() -> None:
    """Watch from now on."""
    sys.meta_path.insert(0, ImportWatch())
