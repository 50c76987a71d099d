"""Sockets that systemd opened for us, and passes at the start (sd_listen_fds(3)).

They are matched to the endpoints of the configuration by their address. So a port below 1024 needs
no capability of ours, and a restart refuses nobody: the sockets stay open in systemd.
"""

import os
import socket
from collections.abc import Hashable, Iterable, Mapping, MutableMapping
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Final

from vsockproxy.addresses import (
    Endpoint,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    format_ip,
)
from vsockproxy.control.listeners import socket_key
from vsockproxy.listening import Listener, ListenError, set_vsock_buffer

__all__ = ("FIRST_DESCRIPTOR", "adopt", "match_sockets", "take_passed")

FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START."""

_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def take_passed(environment: MutableMapping[str, str], pid: int) -> dict[int, str]:
    """Descriptors that were passed to process `pid`, and their names; empty if there are none.

    The variables are removed, so that children do not take the descriptors for theirs.

    Raises:
        ListenError: the variables are for us, and make no sense.
    """
    listen_pid, count_text, names_text, _ = (environment.pop(name, "") for name in _VARIABLES)
    if not listen_pid or not count_text or listen_pid != str(pid):
        return {}
    if not count_text.isascii() or not count_text.isdigit():
        raise ListenError(f"LISTEN_FDS={count_text!r} is no number of sockets: unset it")
    count = int(count_text)
    names = names_text.split(":") if names_text else []
    if names and len(names) != count:
        raise ListenError(f"LISTEN_FDNAMES has {len(names)} names for {count} sockets: unset it")
    numbers = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count)
    return {number: names[index] if names else "unknown" for index, number in enumerate(numbers)}


def adopt(passed: Mapping[int, str]) -> dict[str, socket.socket]:
    """Sockets of the descriptors, each with a name for people; all stay here at exec.

    Raises:
        ListenError: one of them is no listening stream socket.
    """
    adopted: dict[str, socket.socket] = {}
    with ExitStack() as undo:
        for number, name in passed.items():
            label = f"descriptor {number} ({name})"
            try:
                os.set_inheritable(number, False)
                sock = socket.socket(fileno=number)
            except OSError as error:
                why = error.strerror
                raise ListenError(f"{label} was passed and is no socket: {why}") from None
            undo.callback(sock.close)
            label = f"{label} at {_describe(sock)}"
            is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if sock.type != socket.SOCK_STREAM or not is_listening:
                raise ListenError(
                    f"{label} was passed and is no listening stream socket: write ListenStream= "
                    "in the socket unit, and Accept=no"
                )
            sock.setblocking(False)
            adopted[label] = sock
        undo.pop_all()
    return adopted


def match_sockets(
    adopted: Mapping[str, socket.socket], wanted: Iterable[Endpoint]
) -> dict[Hashable, Listener]:
    """Listeners for those endpoints whose sockets were passed, by `socket_key`.

    Raises:
        ListenError: a socket was passed that no endpoint is for.
    """
    endpoints = list(wanted)
    matched: dict[Hashable, Listener] = {}
    strangers = []
    for label, sock in adopted.items():
        found = _find(sock, [each for each in endpoints if socket_key(each) not in matched])
        if found is None:
            strangers.append(label)
            continue
        if isinstance(found, VsockAddress):
            set_vsock_buffer(sock)  # connections take it from here, so before the first of them
        matched[socket_key(found)] = Listener(found, sock)
    if strangers:
        raise ListenError(
            f"passed by systemd, and nowhere in the configuration: {', '.join(strangers)}: "
            "write its address there, or take it out of the socket unit"
        )
    return matched


def _find(sock: socket.socket, endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint that a socket is for."""
    address = sock.getsockname()
    second_best: Endpoint | None = None
    for endpoint in endpoints:
        match endpoint:
            case VsockAddress(cid=cid, port=port) if _is_vsock(sock):
                if address == (cid, port):
                    return endpoint
            case UnixAddress(path=path) if sock.family == socket.AF_UNIX:
                if address == path:
                    return endpoint
            case TcpAddress(host=host, port=port) if sock.family in _INET:
                bound, bound_port = ip_address(address[0].partition("%")[0]), address[1]
                wanted = ip_address("127.0.0.1" if host == "localhost" else host)
                if bound_port != port:
                    continue
                if bound == wanted:
                    return endpoint
                if wanted.version == 4 and wanted.is_unspecified and _takes_both(sock, str(bound)):
                    second_best = endpoint  # ListenStream=443 is [::]:443, for both versions
    return second_best


_INET: Final = (socket.AF_INET, socket.AF_INET6)


def _is_vsock(sock: socket.socket) -> bool:
    return hasattr(socket, "AF_VSOCK") and sock.family == socket.AF_VSOCK


def _takes_both(sock: socket.socket, host: str) -> bool:
    """Whether an IPv6 socket takes connections over IPv4 too."""
    return (
        sock.family == socket.AF_INET6
        and host == "::"
        and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )


def _describe(sock: socket.socket) -> str:
    """Where a socket is, as a configuration has it where that is possible."""
    address = sock.getsockname()
    if _is_vsock(sock):
        return str(VsockAddress(*address))
    if sock.family == socket.AF_UNIX:
        return f"unix://{address}" if isinstance(address, str) else f"unix socket {address!r}"
    if sock.family in _INET:
        return str(TcpAddress(format_ip(ip_address(address[0].partition("%")[0])), address[1]))
    return f"a socket of family {sock.family}"
