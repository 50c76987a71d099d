"""The parent's listening sockets, through all reloads; without trio, which is imported later.

A reload binds what is new before it changes anything, so a file whose listeners cannot be had
changes nothing. What both files have keeps its socket, and with it whoever waits in its queue.
"""

import os
from collections.abc import Hashable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from vsockproxy.addresses import Endpoint, TcpAddress, UnixAddress, VsockAddress
from vsockproxy.listening import DEFAULT_MODE, Listener, open_listener
from vsockproxy.worker_messages import ListenerKind, ListenerSummary

__all__ = ("Change", "ListenerSet", "NamedListener", "WantedListener", "socket_key")

WantedListener = tuple[str, ListenerKind, Endpoint]
"""Its path in the configuration, what it is for, and where it is."""


@dataclass(frozen=True, slots=True)
class NamedListener:
    """A listening socket, its path in the configuration, and what it is for."""

    name: str
    kind: ListenerKind
    listener: Listener

    @property
    def summary(self) -> ListenerSummary:
        """What workers are told about it."""
        return ListenerSummary(self.name, self.kind, str(self.listener.endpoint))


def socket_key(endpoint: Endpoint) -> Hashable:
    """What two endpoints have in common if one socket serves both, whatever else they say."""
    match endpoint:
        case UnixAddress(path=path):
            return path
        case TcpAddress(host=host, port=port):
            return ("127.0.0.1" if host == "localhost" else host), port
        case VsockAddress(cid=cid, port=port):
            return cid, port


@dataclass(frozen=True, slots=True)
class Change:
    """What a new file does to the listeners; nothing has changed yet but for new sockets.

    Args:
        listeners: all that there will be, in the order of the file.
        opened: those of them that are new.
        closing: those that there will not be.
    """

    listeners: tuple[NamedListener, ...]
    opened: tuple[NamedListener, ...]
    closing: tuple[NamedListener, ...]


class ListenerSet:
    """All listening sockets, to be closed by `close`.

    Args:
        inherited: sockets that were passed to this process, by `socket_key`.
    """

    def __init__(self, inherited: Mapping[Hashable, Listener] | None = None) -> None:
        self.listeners: tuple[NamedListener, ...] = ()
        self._inherited = dict(inherited or {})

    def prepare(self, wanted: Iterable[WantedListener]) -> Change:
        """Open what is wanted and not there yet.

        Raises:
            ListenError: one cannot be bound; nothing has changed.
        """
        held = {
            socket_key(named.listener.endpoint): named.listener
            for named in self.listeners
            if named.listener.is_in_place
        }
        listeners: list[NamedListener] = []
        opened: list[NamedListener] = []
        with ExitStack() as undo:
            for name, kind, endpoint in wanted:
                key = socket_key(endpoint)
                listener = held.pop(key, None) or self._inherited.pop(key, None)
                if listener is not None:
                    listener = replace(listener, endpoint=endpoint)
                    listeners.append(NamedListener(name, kind, listener))
                    continue
                listener = open_listener(endpoint)
                undo.callback(listener.close)
                listeners.append(NamedListener(name, kind, listener))
                opened.append(listeners[-1])
            undo.pop_all()
        staying = {named.listener.socket for named in listeners}
        closing = [each for each in self.listeners if each.listener.socket not in staying]
        return Change(tuple(listeners), tuple(opened), tuple(closing))

    def apply(self, change: Change) -> None:
        """Change over; what is not there any more is closed."""
        former = {named.listener.socket: named.listener.endpoint for named in self.listeners}
        self.listeners = change.listeners
        for named in change.closing:
            named.listener.close()
        for named in change.listeners:
            _change_mode(former.get(named.listener.socket), named.listener)

    def close(self, *, all_but: ListenerKind | None = None) -> None:
        """Close all of them, or all but those of a kind; who connects from now on is refused."""
        closing = [named for named in self.listeners if named.kind != all_but]
        self.listeners = tuple(named for named in self.listeners if named.kind == all_but)
        for named in closing:
            named.listener.close()


def _change_mode(former: Endpoint | None, listener: Listener) -> None:
    """Give a unix socket of ours the mode that its endpoint has now."""
    endpoint = listener.endpoint
    if (
        isinstance(former, UnixAddress)
        and isinstance(endpoint, UnixAddress)
        and former.mode != endpoint.mode
        and listener.identity is not None
    ):
        with suppress(OSError):  # somebody removed it; the next reload makes it anew
            os.chmod(endpoint.path, DEFAULT_MODE if endpoint.mode is None else endpoint.mode)
