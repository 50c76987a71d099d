"""Many connections, in threads, loops and other processes, and what they leave behind."""

import asyncio
import errno
import gc
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.enclave_side.shim.socket_shim.acts_of_connecting import SECONDS, see
from tests.enclave_side.shim.socket_shim.acts_on_connections import call, exchange
from tests.enclave_side.shim.socket_shim.errors_told import CONNECTED, number_symbol, symbol


def given_up(host: str, port: int) -> None:
    """Begin to connect, and close."""
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex((host, port)) == errno.EINPROGRESS


def dropped(host: str, port: int) -> None:
    """Begin to connect, and forget the socket without a close."""
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex((host, port)) == errno.EINPROGRESS


def closed_by_number(host: str, port: int) -> None:
    """Begin to connect, and close the descriptor alone."""
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex((host, port)) == errno.EINPROGRESS
    socket.close(sock.detach())


def refused(manner: str, host: str, port: int) -> None:
    """Connect in some manner to what refuses."""
    assert see(manner, host, port) != CONNECTED


def succeeds(manner: str, host: str, port: int) -> None:
    """Connect in some manner."""
    assert see(manner, host, port) == CONNECTED


def looks_up(host: str) -> None:
    """Look a name up, there or not."""
    call("getaddrinfo", host, 443)


LEAVING: dict[str, Callable[..., None]] = {
    "refused": refused,
    "succeeds": succeeds,
    "looks_up": looks_up,
    "given_up": given_up,
    "dropped": dropped,
    "closed_by_number": closed_by_number,
}


def descriptors() -> int:
    """How many are open, with none that only garbage holds."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def leaves_open(name: str, times: int, *arguments: Any) -> int:
    """How many descriptors are left by so many acts of `LEAVING`."""
    act = LEAVING[name]
    act(*arguments)  # what is kept on purpose is kept now
    before = descriptors()
    for _ in range(times):
        act(*arguments)
    return descriptors() - before


def crowd(host: str, port: int, threads: int) -> int:
    """How many of so many threads, all at once, get back what they send."""
    right: list[int] = []
    start = threading.Barrier(threads)

    def one(number: int) -> None:
        text = f"{number} " * 1000
        start.wait(SECONDS)
        if exchange(host, port, text) == text:
            right.append(number)

    workers = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(SECONDS)
    return len(right)


def crowd_with_asyncio(host: str, port: int, count: int) -> int:
    """The same from one loop."""

    async def one(number: int) -> bool:
        reader, writer = await asyncio.open_connection(host, port)
        text = f"{number} ".encode() * 1000
        writer.write(text)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer == text

    async def main() -> int:
        return sum(await asyncio.gather(*map(one, range(count))))

    return asyncio.run(main())


def gives_up_with_asyncio(host: str, port: int) -> str:
    """A connection that a loop's timeout ends."""

    async def main() -> str:
        try:
            async with asyncio.timeout(0.05):
                await asyncio.open_connection(host, port)
        except TimeoutError as error:
            return "timed out" if error.errno is None else symbol(error)
        return CONNECTED

    return asyncio.run(main())


def times_out(host: str, port: int) -> list[str]:
    """Connections that a timeout of the socket ends."""
    with socket.socket() as sock:
        sock.settimeout(0.05)
        try:
            sock.connect((host, port))
        except OSError as error:
            return [symbol(error), number_symbol(sock.connect_ex((host, port)))]
    return [CONNECTED]


def in_subprocess(code: str, *arguments: str) -> list[Any]:
    """Status, stdout and stderr of a Python program that this one starts."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    return [done.returncode, done.stdout, done.stderr]


def in_processes(method: str, host: str, port: int) -> list[str]:
    """What processes of multiprocessing get back from an echo."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        work = [(host, port, f"word {number}") for number in range(4)]
        return pool.starmap_async(exchange, work).get(SECONDS)
