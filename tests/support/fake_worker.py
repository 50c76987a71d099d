"""A worker without a data path: it obeys its supervisor, and tells each connection who it is.

    python -m tests.support.fake_worker DESCRIPTOR

A connection gets one line, `PID LISTENER CID INDEX`, and is closed. The variable FAKE_WORKER makes
it misbehave: `dies` exits with 3 once it is configured, `deaf` never obeys `stop`, `garbage` sends
a packet that is no message, `noisy` writes a long line without an end to stderr.
"""

import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

from vsockproxy.passed_memory import read_document
from vsockproxy.worker_messages import (
    ChannelClosed,
    Configure,
    Connection,
    Heartbeat,
    Listeners,
    Ready,
    Reload,
    Reloaded,
    Stop,
    Stopped,
    receive,
    send,
)

LONGEST_LIFE_SECONDS = 60.0
"""Whatever happens to a test, nothing is left behind."""


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.setblocking(False)
    behaviour = os.environ.get("FAKE_WORKER", "")
    listeners: dict[socket.socket, str] = {}
    names: list[str] = []
    index = -1
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    ends_at = time.monotonic() + LONGEST_LIFE_SECONDS
    while time.monotonic() < ends_at:
        if index >= 0:
            send(channel, Heartbeat())
        for key, _ in selector.select(timeout=1.0):
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if ready is not channel:
                accept(ready, listeners[ready], index)
                continue
            try:
                message, descriptors = receive(channel)
            except ChannelClosed:
                return 0
            match message:
                case Configure():
                    index = message.worker
                    document = read_document(descriptors[0])
                    os.close(descriptors[0])
                    if behaviour == "dies":
                        return 3
                    if behaviour == "garbage":
                        channel.send(b"garbage")
                    if behaviour == "noisy":
                        os.write(2, b"n" * 100_000)
                    names = [each.name for each in message.listeners]
                    print(f"worker {index} has {document.file}", file=sys.stderr, flush=True)
                    if not message.listeners_follow:
                        send(channel, Ready())
                case Listeners():
                    for descriptor in descriptors:
                        listener = socket.socket(fileno=descriptor)
                        listeners[listener] = names[len(listeners)]
                        selector.register(listener, selectors.EVENT_READ)
                    if len(listeners) == len(names):
                        send(channel, Ready())
                case Connection():
                    with socket.socket(fileno=descriptors[0]) as connection:
                        answer(connection, message.listener, message.cid, index)
                case Reload():
                    names = [each.name for each in message.listeners]
                    document = read_document(descriptors[0])
                    os.close(descriptors[0])
                    print(f"worker {index} now has {document.file}", file=sys.stderr, flush=True)
                    error = "as the test wants it" if behaviour == "refuses" else None
                    send(channel, Reloaded(message.request, error))
                case Stop():
                    if behaviour != "deaf":
                        send(channel, Stopped())
                        return 0
                case _:
                    raise AssertionError(message)
    return 1


def accept(listener: socket.socket, name: str, index: int) -> None:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return  # another worker was faster
    with connection:
        answer(connection, name, 0, index)


def answer(connection: socket.socket, listener: str, cid: int, index: int) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the test has gone on
        connection.sendall(f"{os.getpid()} {listener} {cid} {index}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
