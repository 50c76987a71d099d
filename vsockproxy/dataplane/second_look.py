"""A second look at a socket whose last read was short.

A short read says that the kernel has no more bytes; another read that only says so again would be a
system call for nothing, on every event. But an error may stand behind the bytes, and after an error
condition on a socket uvloop runs its reader once and never again: it closes its poll handle. So the
reader looks once more a little later, once for all the short reads until then.
"""

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary

SECOND_LOOK_SECONDS = 0.02
"""How much later, at most, a reset that came together with bytes is seen."""


class Reader(Protocol):
    """What reads a socket on readiness. `has_look_due` is this module's, and begins as False."""

    has_look_due: bool

    def look_again(self) -> None:
        """Read until the kernel has no more, if the socket is still read."""


_due: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, list[Reader]]] = WeakKeyDictionary()
"""Of each loop, those that are to look again: with one timer for all, as most streams are short."""


def look_again(reader: Reader) -> None:
    """Have `reader` look again a little later, unless it is about to."""
    if reader.has_look_due:
        return
    reader.has_look_due = True
    loop = asyncio.get_running_loop()
    due = _due.get(loop)
    if due is None:
        due = _due[loop] = []
    if not due:
        loop.call_later(SECOND_LOOK_SECONDS, _look, loop, due)
    due.append(reader)


def _look(loop: asyncio.AbstractEventLoop, due: list[Reader]) -> None:
    done = 0
    try:
        for reader in due.copy():
            done += 1
            reader.has_look_due = False
            reader.look_again()
    finally:  # whatever a reader raises, the others still look
        del due[:done]
        if due:
            loop.call_later(SECOND_LOOK_SECONDS, _look, loop, due)
