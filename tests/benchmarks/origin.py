"""The far end of every benchmark, a process of its own: `python -m tests.benchmarks.origin FD`.

FD is a listening TCP socket. The first byte of a connection says what it is for:

    E       every byte is sent back, this one too
    S       bytes are read to the end, then their number is sent (8 bytes, big-endian)
    R n     n bytes are sent (n has 8 bytes)
    B n     both at once: bytes are read to the end, and n bytes are sent

Echoes share one epoll loop; the others are few and large, and have a thread each.
"""

import os
import select
import signal
import socket
import sys
from threading import Thread

from tests.benchmarks.transfers import TOTAL, receive_exactly, send_zeros, swallow
from vsockproxy.processes import die_with_starter

MESSAGE_BYTES = 64 * 1024
ACCEPTS_PER_EVENT = 64


class Origin:
    """Serves connections until the process ends.

    Args:
        listener: listening and non-blocking.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._epoll = select.epoll()
        self._echoes: dict[int, socket.socket] = {}
        self._fresh: dict[int, socket.socket] = {}

    def serve(self) -> None:
        """Serve for ever."""
        listening = self._listener.fileno()
        self._epoll.register(listening, select.EPOLLIN)
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == listening:
                    self._accept()
                elif descriptor in self._echoes:
                    self._echo(descriptor)
                else:
                    self._begin(descriptor)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._fresh[sock.fileno()] = sock
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _begin(self, descriptor: int) -> None:
        sock = self._fresh.pop(descriptor)
        try:
            purpose = sock.recv(1, socket.MSG_PEEK)
        except OSError:
            purpose = b""
        if purpose == b"E":
            self._echoes[descriptor] = sock
            self._echo(descriptor)
            return
        self._epoll.unregister(descriptor)
        if purpose:
            sock.setblocking(True)
            Thread(target=_transfer, args=(sock,), daemon=True).start()
        else:
            sock.close()

    def _echo(self, descriptor: int) -> None:
        sock = self._echoes[descriptor]
        try:
            data = sock.recv(MESSAGE_BYTES)
            if data:
                sock.send(data)
                return
        except OSError:
            pass
        del self._echoes[descriptor]
        self._epoll.unregister(descriptor)
        sock.close()


def _transfer(sock: socket.socket) -> None:
    with sock:
        purpose = sock.recv(1)
        wanted = TOTAL.unpack(receive_exactly(sock, TOTAL.size))[0] if purpose in b"RB" else 0
        sender = Thread(target=_send_all, args=(sock, wanted), daemon=True)
        sender.start()
        total = swallow(sock)
        sender.join()
        if purpose == b"S":
            sock.sendall(TOTAL.pack(total))


def _send_all(sock: socket.socket, wanted: int) -> None:
    if wanted:
        send_zeros(sock, wanted)
        sock.shutdown(socket.SHUT_WR)


def main() -> None:
    """Serve on the inherited listener."""
    die_with_starter(os.getppid(), signal.SIGKILL)
    Origin(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
