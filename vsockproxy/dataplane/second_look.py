"""A second look at a socket whose last read was short.

A short read says that the kernel has no more bytes; another read that only says so again would be a
system call for nothing, on every event. But an error may stand behind the bytes, and after an error
condition on a socket uvloop runs its reader once and never again: it closes its poll handle. So the
reader looks once more a little later, once for all the short reads until then.
"""

import asyncio
from typing import Protocol

SECOND_LOOK_SECONDS = 0.02
"""How much later a reset that came together with bytes is seen."""


class Reader(Protocol):
    """What reads a socket on readiness. `has_look_due` is this module's, and begins as False."""

    has_look_due: bool

    def look_again(self) -> None:
        """Read until the kernel has no more, if the socket is still read."""


def look_again(reader: Reader) -> None:
    """Have `reader` look again a little later, unless it is about to."""
    if not reader.has_look_due:
        reader.has_look_due = True
        asyncio.get_running_loop().call_later(SECOND_LOOK_SECONDS, _look, reader)


def _look(reader: Reader) -> None:
    reader.has_look_due = False
    reader.look_again()
