"""What tests of the resolver have in common: a loop with a limit."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from vsockproxy.dataplane import loop

T = TypeVar("T")

LONG = 30.0
"""Seconds that no test waits for when all is well."""


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run on a loop of ours, for `LONG` seconds at most."""

    async def bounded() -> T:
        async with loop.timeout(LONG):
            return await main()

    return loop.run(bounded())
