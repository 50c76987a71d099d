"""A second look at a socket whose last read was short.

A short read says that the kernel has no more bytes; another read that only says so again would be a
system call for nothing, on every event. But an error may stand behind the bytes, and after an error
condition on a socket uvloop runs its reader once and never again: it closes its poll handle. So the
reader looks once more a little later, once for all the short reads until then.
"""

import asyncio
from collections.abc import Callable

SECOND_LOOK_SECONDS = 0.02
"""How much later a reset that came together with bytes is seen."""


def look_again(look: Callable[[], None]) -> None:
    """Call `look` a little later; it reads until the kernel has no more."""
    asyncio.get_running_loop().call_later(SECOND_LOOK_SECONDS, look)
