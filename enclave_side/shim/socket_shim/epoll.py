"""An epoll that knows what is registered: a descriptor can change its socket, and stay there.

The kernel registers the socket behind a descriptor, not the number: with dup2() over it the
registration is gone, silently (epoll(7), "closing a file descriptor"). select() and poll() take
numbers, and need no help.
"""

import errno
import select
from typing import Any, ClassVar, Final, Protocol, Self
from weakref import WeakValueDictionary

__all__ = ("Epoll", "registrations")

_DEFAULT_MASK: Final = select.EPOLLIN | select.EPOLLPRI | select.EPOLLOUT
"""Of `select.epoll.register`."""

_NATIVE: Final = select.epoll
"""Kept here: `select.epoll` is the class below once the shim is installed."""


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class Epoll:
    """`select.epoll`, which cannot be derived from, with the same methods.

    Args:
        sizehint: without meaning for the kernel.
        flags: likewise.
    """

    __slots__ = ("__weakref__", "_masks", "_native", "poll")

    _all: ClassVar[WeakValueDictionary[int, "Epoll"]] = WeakValueDictionary()

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        self._adopt(_NATIVE(sizehint, flags))

    @classmethod
    def fromfd(cls, fd: int, /) -> Self:
        """An object for an epoll descriptor, which it owns from now on."""
        epoll = cls.__new__(cls)
        epoll._adopt(_NATIVE.fromfd(fd))
        return epoll

    def _adopt(self, native: Any) -> None:
        self._native = native
        self._masks: dict[int, int] = {}
        self.poll = native.poll  # called once in each turn of a loop: no detour
        self._all[id(self)] = self

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self._native.closed)

    def close(self) -> None:
        """Close its descriptor."""
        self._masks.clear()
        self._native.close()

    def fileno(self) -> int:
        """Its descriptor."""
        return int(self._native.fileno())

    def register(self, fd: int | _HasDescriptor, eventmask: int = _DEFAULT_MASK) -> None:
        """Register a descriptor."""
        self._native.register(fd, eventmask)
        self._masks[_number(fd)] = eventmask

    def modify(self, fd: int | _HasDescriptor, eventmask: int) -> None:
        """Change what a descriptor is registered for."""
        self._native.modify(fd, eventmask)
        self._masks[_number(fd)] = eventmask

    def unregister(self, fd: int | _HasDescriptor) -> None:
        """Remove a descriptor."""
        self._masks.pop(_number(fd), None)
        self._native.unregister(fd)

    def mask_of(self, descriptor: int) -> int | None:
        """What `descriptor` is registered for; None if the kernel says that it is not, any more."""
        mask = self._masks.get(descriptor)
        if mask is None:
            return None
        try:
            self._native.modify(descriptor, mask)
        except (OSError, ValueError) as error:
            # EINVAL: it is there for EPOLLEXCLUSIVE, which cannot be modified. Otherwise it was
            # another socket that had this number, or we are closed.
            if not isinstance(error, OSError) or error.errno != errno.EINVAL:
                self._masks.pop(descriptor, None)
                return None
        return mask

    def __enter__(self) -> Self:
        self._native.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def registrations(descriptor: int) -> list[tuple[Epoll, int]]:
    """Where a descriptor is registered, and for what."""
    return [
        (epoll, mask)
        for reference in Epoll._all.valuerefs()  # a list, whatever other threads do meanwhile
        if (epoll := reference()) is not None and (mask := epoll.mask_of(descriptor)) is not None
    ]


def _number(fd: int | _HasDescriptor) -> int:
    return fd if isinstance(fd, int) else fd.fileno()
