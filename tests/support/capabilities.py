"""Whether this thread has capabilities."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ("without_capabilities",)

_VERSION_3: Final = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3 of include/uapi/linux/capability.h."""


@contextmanager
def without_capabilities() -> Iterator[None]:
    """This thread has no effective capability meanwhile, as those of plain users have none."""
    library = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()
    assert library.capget(header, before) == 0
    none = (ctypes.c_uint32 * 6)(0, *before[1:3], 0, *before[4:])
    assert library.capset(header, none) == 0
    try:
        yield
    finally:
        assert library.capset(header, before) == 0
