"""Serves on TCP ports of every address while a command runs: the ports, `--`, and the command.

Each listener answers with its port. Before the command this program asks each of them itself, by
every address that is its own, and prints which ports answered; its exit status is the command's.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread

OWN_ADDRESSES = ("127.0.0.1", "::1", "198.18.0.2", "fd76:736f:636b::2")
SECONDS = 10.0


def main(words: list[str]) -> int:
    separator = words.index("--")
    ports = [int(word) for word in words[:separator]]
    with ExitStack() as stack:
        for port in ports:
            for listener in listeners(port):
                stack.enter_context(listener)
                Thread(target=serve, args=(listener, port), daemon=True).start()
        print("served", *(port for port in ports if is_served(port)), flush=True)
        return subprocess.run(words[separator + 1 :], check=False).returncode


def listeners(port: int) -> Iterator[socket.socket]:
    yield socket.create_server(("0.0.0.0", port))
    yield socket.create_server(("::", port), family=socket.AF_INET6)


def serve(listener: socket.socket, port: int) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(str(port).encode())


def is_served(port: int) -> bool:
    return all(ask(address, port) == str(port).encode() for address in OWN_ADDRESSES)


def ask(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), SECONDS) as connection:
        return connection.recv(100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
