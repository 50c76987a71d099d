"""What a program does with connections that stand, and with those that are none of ours."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import tempfile
import threading
from typing import Any

from tests.enclave_side.shim.socket_shim.acts_of_connecting import SECONDS, woken
from tests.enclave_side.shim.socket_shim.errors_told import CONNECTED, number_symbol, symbol


def addresses(host: str, port: int) -> list[Any]:
    """What getpeername says, by manners, and what the name was looked up to."""
    expected = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
    with socket.create_connection((host, port)) as sock, sock.dup() as duplicate:
        seen = [sock.getpeername(), duplicate.getpeername()]
        with socket.socket(fileno=os.dup(sock.fileno())) as other:
            seen.append(other.getpeername())
        number = sock.detach()
        with socket.socket(fileno=number) as again:
            seen.append(again.getpeername())
    with woken(host, port) as sock:
        seen.append(sock.getpeername())
    with socket.socket(socket.AF_INET) as sock:
        sock.connect((host, port))
        seen.append(sock.getpeername())
    return [expected, *seen]


def peer_of_v6(host: str, port: int) -> Any:
    """Whom a socket of IPv6 names after an echo."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.connect((host, port))
        sock.sendall(b"word")
        assert sock.recv(4) == b"word"
        return sock.getpeername()


def exchange(host: str, port: int, text: str, end: bool = True) -> str:
    """Send, end one's own direction, and read to the end."""
    with socket.create_connection((host, port), SECONDS) as sock:
        sock.sendall(text.encode())
        if end:
            sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as file:
            return file.read().decode()


def send_file(host: str, port: int, count: int) -> bool:
    """Whether a file comes back as it was sent."""
    data = os.urandom(count)
    with tempfile.TemporaryFile() as file, socket.create_connection((host, port)) as sock:
        file.write(data)
        file.seek(0)
        received = bytearray()
        reader = threading.Thread(target=lambda: received.extend(sock.makefile("rb").read()))
        reader.start()
        assert sock.sendfile(file) == count
        sock.shutdown(socket.SHUT_WR)
        reader.join(SECONDS)
    return received == data


def times_of_transfers(host: str, port: int) -> list[str]:
    """What is left of SO_RCVTIMEO, which was set before connect()."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 50_000))
        sock.connect((host, port))
        try:
            sock.recv(1)
        except OSError as error:
            return [symbol(error)]
    return [CONNECTED]


_held: list[socket.socket] = []


def hold(host: str, port: int, first: str) -> str:
    """Connect, and read a word; the connection stays."""
    sock = socket.create_connection((host, port), SECONDS)
    _held.append(sock)
    return sock.recv(len(first)).decode()


def end_of_held(last: str = "") -> str:
    """Say a last word; how the held connection ends."""
    with _held.pop() as sock:
        try:
            sock.sendall(last.encode())
            return sock.recv(1).decode() or "an end of file"
        except OSError as error:
            return symbol(error)


OPTIONS = {
    "TCP_NODELAY": (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "SO_OOBINLINE": (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 7),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9000),
}


def options(host: str, port: int, blocks: bool) -> dict[str, Any]:
    """What is left of what was set before connect()."""
    with socket.socket() as sock:
        sock.set_inheritable(True)
        for level, option, value in OPTIONS.values():
            sock.setsockopt(level, option, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
        sock.settimeout(SECONDS)
        if not blocks:
            sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect((host, port))
        kept: dict[str, Any] = {
            name: sock.getsockopt(level, option) for name, (level, option, _) in OPTIONS.items()
        }
        linger = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.calcsize("@ii"))
        kept["SO_LINGER"] = struct.unpack("@ii", linger)
        kept["inheritable"] = sock.get_inheritable()
        kept["timeout"] = sock.gettimeout()
        kept["blocks"] = os.get_blocking(sock.fileno())
        return kept


_SO_BUF_LOCK = 72
"""include/uapi/asm-generic/socket.h; since Linux 5.14."""


def buffers(host: str, port: int) -> list[list[int]]:
    """Sizes of buffers before connect() and after it; of none where the kernel does not tell."""
    names = (socket.SO_SNDBUF, socket.SO_RCVBUF)
    with socket.socket() as sock:
        try:
            sock.getsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK)
        except OSError:
            return [[], []]
        for name in names:
            sock.setsockopt(socket.SOL_SOCKET, name, 30_000)
        before = [sock.getsockopt(socket.SOL_SOCKET, name) for name in names]
        sock.connect((host, port))
        return [before, [sock.getsockopt(socket.SOL_SOCKET, name) for name in names]]


def tls(host: str, port: int, authority: str) -> list[Any]:
    """Peer, subject's name and version of a TLS connection, and an answer over it."""
    context = ssl.create_default_context(cafile=authority)
    with (
        socket.create_connection((host, port), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as sock,
    ):
        sock.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        same = sock.getpeername() == (socket.gethostbyname(host), port)
        version = sock.version()  # before the end, which takes it away
        return [same, version, sock.makefile("rb").read().decode().splitlines()[-1]]


def tls_before_connect(host: str, port: int, authority: str) -> str | None:
    """The version of TLS on a socket that was wrapped first and connected then."""
    context = ssl.create_default_context(cafile=authority)
    with context.wrap_socket(socket.socket(), server_hostname=host) as sock:
        sock.connect((host, port))
        return sock.version()


def tls_with_asyncio(host: str, port: int, authority: str) -> list[Any]:
    """The same as `tls`, from a loop."""

    async def main() -> list[Any]:
        context = ssl.create_default_context(cafile=authority)
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        version = writer.get_extra_info("ssl_object").version()
        answer = await reader.read()
        peer = writer.get_extra_info("peername")
        writer.close()
        with contextlib.suppress(ssl.SSLError):
            await writer.wait_closed()
        return [
            peer == (socket.gethostbyname(host), port),
            version,
            answer.decode().split("\n")[-2],
        ]

    return asyncio.run(main())


def local() -> list[str]:
    """Connections within the machine, to listeners of this program."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "", "0.0.0.0"):
            with socket.socket() as sock:
                sock.connect((host, port))
                seen.append(str(sock.getpeername() == ("127.0.0.1", port)))
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port))
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{directory}/socket")
        server.listen()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{directory}/socket")
            seen.append(str(sock.getpeername() == f"{directory}/socket"))
    return seen


def datagram(host: str, port: int) -> str:
    """connect() of a UDP socket."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        return number_symbol(sock.connect_ex((host, port)))


def call(name: str, *arguments: Any) -> Any:
    """A function of the module `socket`; a sockaddr is a list here."""
    plain = [tuple(each) if isinstance(each, list) else each for each in arguments]
    try:
        return getattr(socket, name)(*plain)
    except OSError as error:
        return symbol(error)
    except (TypeError, ValueError, OverflowError) as error:
        return type(error).__name__


def connect(family: str, *address: Any) -> str:
    """connect() to an address of any form."""
    with socket.socket(getattr(socket, family)) as sock:
        try:
            sock.connect(address[0] if len(address) == 1 else address)
        except OSError as error:
            return symbol(error)
        except (TypeError, ValueError, OverflowError) as error:
            return type(error).__name__
        return CONNECTED
