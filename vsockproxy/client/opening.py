"""The stream socket from a program's side: connect, ask, take the descriptor, hear the answer.

With a loop, `for_asyncio` and `for_trio` do the waiting. Without one, `Opening.begin` and `resolve`
block, each for at most a number of seconds; whoever has to wait for many things at once waits for
`Opening.fileno()` or for the stream's own descriptor (`messages` says what that shows) and calls
`receive` on a connection that does not block.
"""

import errno
import os
import socket
import time
from array import array
from contextlib import ExitStack
from typing import Any, Final, Self

from vsockproxy.client.errors import OpeningCut, refused
from vsockproxy.client.location import missing, stream_socket_path
from vsockproxy.client.messages import (
    MAX_ANSWER_BYTES,
    Answer,
    Incoming,
    PacketError,
    Pending,
    Request,
    pack,
    unpack_answer,
)
from vsockproxy.session.errors import LocalProtocolError
from vsockproxy.session.messages import Open, Opened, Refusal, Resolve, Resolved

__all__ = (
    "FIRST_RETRY_SECONDS",
    "MOST_RETRY_SECONDS",
    "Opening",
    "connect",
    "receive_answer",
    "resolve",
    "send_request",
    "try_to_connect",
)

FIRST_RETRY_SECONDS: Final = 0.01
MOST_RETRY_SECONDS: Final = 0.1
"""Pauses while the listener's backlog is full; a unix socket cannot be waited for then."""

_MOST_DESCRIPTORS: Final = 4
"""One is expected; of more, these are taken to be closed, and the kernel closes the rest."""


def try_to_connect(path: str) -> socket.socket:
    """Connect to the stream socket without waiting; the connection does not block.

    Raises:
        BlockingIOError: the listener's backlog is full; try again after a pause.
        StreamSocketMissing: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        connection.connect(path)
    except BlockingIOError:
        connection.close()
        raise
    except (OSError, ValueError) as error:
        connection.close()
        raise missing(path, error) from error
    return connection


def connect(path: str, timeout: float | None = None) -> socket.socket:
    """Connect to the stream socket, and wait for it.

    Args:
        path: of the socket.
        timeout: seconds; None is no limit.

    Raises:
        TimeoutError: the listener's backlog stayed full.
        StreamSocketMissing: nobody listens there.
    """
    deadline = _Deadline(timeout)
    pause = FIRST_RETRY_SECONDS
    while True:
        try:
            return try_to_connect(path)
        except BlockingIOError:
            left = deadline.left(path)
        time.sleep(pause if left is None else min(pause, left))
        pause = min(2 * pause, MOST_RETRY_SECONDS)


class Opening:
    """A stream that is being opened, from OPEN to its answer; `detach` or `close` ends it.

    `socket` is the stream's own, an ordinary blocking TCP socket; None until PENDING has arrived.
    `address` is what the parent dialled, once the stream is open; empty where it did not say.

    Args:
        connection: to the stream socket, and nothing was sent on it; owned from now on. Whether
            and how long `receive` waits is what `settimeout` says of it.
        host: a name or an IP literal.
        port: a TCP port.
        dedicated: whether the stream has a vsock connection of its own.
        service: a service of the parent in place of host and port, which are empty and 0 then; for
            processes of ours alone.

    Raises:
        ValueError: host or port cannot be asked for.
    """

    __slots__ = ("_connection", "_host", "_is_open", "_port", "address", "socket")

    def __init__(
        self,
        connection: socket.socket,
        host: str,
        port: int,
        *,
        dedicated: bool = False,
        service: str = "",
    ) -> None:
        self.socket: socket.socket | None = None
        self.address = ""
        self._connection = connection
        self._host = host or service
        self._port = port
        self._is_open = False
        try:
            send_request(connection, Open(host, port, dedicated, service))
        except BaseException:
            connection.close()
            raise

    @classmethod
    def begin(
        cls,
        host: str,
        port: int,
        *,
        dedicated: bool = False,
        path: str | None = None,
        timeout: float | None = None,
    ) -> Self:
        """Connect, ask, and wait until the stream's socket is here.

        Args:
            host: a name or an IP literal.
            port: a TCP port.
            dedicated: whether the stream has a vsock connection of its own.
            path: of the stream socket, where the environment does not name it.
            timeout: seconds in all; None is no limit.

        Raises:
            TimeoutError: no worker took the request in time.
            StreamSocketMissing: nobody listens.
            StreamRefused: there is no room for a stream.
            OpeningCut, PacketError, ValueError: as `receive` and the class say.
        """
        path = stream_socket_path(path)
        deadline = _Deadline(timeout)
        opening = cls(connect(path, timeout), host, port, dedicated=dedicated)
        try:
            while opening.socket is None:
                opening._connection.settimeout(deadline.left(path))
                opening.receive()
        except BaseException:
            opening.close()
            raise
        return opening

    def fileno(self) -> int:
        """The connection's descriptor: readable when there is something to `receive`."""
        return self._connection.fileno()

    def setblocking(self, flag: bool) -> None:
        """Whether `receive` waits."""
        self._connection.setblocking(flag)

    @property
    def is_open(self) -> bool:
        """Whether the stream stands."""
        return self._is_open

    def receive(self) -> bool:
        """Take one packet; whether the stream stands now.

        Raises:
            BlockingIOError: none has arrived, on a connection that does not block.
            TimeoutError: none has arrived within the connection's timeout.
            StreamRefused: by either side; its class says why.
            OpeningCut: the worker is gone.
            PacketError: it said what is no answer to OPEN.
            OSError: EMFILE, this process has no descriptor left for the stream's socket.
        """
        answer, stream = receive_answer(self._connection)
        match answer:
            case Pending() if self.socket is None:
                self.socket = stream
            case Opened() if self.socket is not None:
                self.address = answer.address
                self._is_open = True
            case Refusal():
                raise refused(answer.reason, answer.text, self._host, self._port)
            case _:
                if stream is not None:
                    stream.close()
                raise PacketError(f"{type(answer).__name__} is no answer to OPEN here")
        return self._is_open

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the stream stands; may be called again where there was no answer in time.

        Args:
            timeout: seconds; None is no limit, 0 takes what has arrived.

        Raises:
            TimeoutError: there was no answer in time. (DialTimedOut is one too, and an answer.)
            StreamRefused, OpeningCut, PacketError: as `receive` says.
        """
        deadline = _Deadline(timeout)
        while not self._is_open:
            try:
                self._connection.setblocking(False)
                self.receive()
            except BlockingIOError:
                self._connection.settimeout(deadline.left(f"{self._host} port {self._port}"))
                self.receive()

    def detach(self) -> socket.socket:
        """Give the stream's socket, which is here, to the caller; nothing else is left open.

        Before the stream stands this gives it up: the socket is then reset.
        """
        stream = self.socket
        assert stream is not None  # whoever asks has seen it
        self.socket = None
        self._connection.close()
        return stream

    def close(self) -> None:
        """Give the stream up; nothing is left open."""
        self._connection.close()
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def resolve(
    name: str, record_type: int, *, path: str | None = None, timeout: float | None = None
) -> Resolved:
    """Ask the parent for the records of a name, and wait for its answer.

    Args:
        name: a host name.
        record_type: the number of a DNS record type: 1 is A, 28 AAAA, 15 MX, 16 TXT, 33 SRV.
        path: of the stream socket, where the environment does not name it.
        timeout: seconds in all; None is no limit.

    Returns:
        The answer: with a reason where there is none, else records in DNS wire format.

    Raises:
        TimeoutError: there was no answer in time.
        StreamSocketMissing: nobody listens.
        OpeningCut: the worker is gone.
        PacketError: it said what is no answer to RESOLVE.
        ValueError: the name or the type cannot be asked for.
    """
    path = stream_socket_path(path)
    deadline = _Deadline(timeout)
    with connect(path, timeout) as connection:
        send_request(connection, Resolve(name, record_type))
        connection.settimeout(deadline.left(name))
        answer, stream = receive_answer(connection)
    match answer:
        case Resolved():
            return answer
        case Refusal():
            return Resolved(answer.reason, answer.text)
    if stream is not None:
        stream.close()
    raise PacketError(f"{type(answer).__name__} is no answer to RESOLVE")


class _Deadline:
    """The end of a wait of several steps."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self, waited_for: str) -> float | None:
        """Seconds that are left, None without a limit; TimeoutError if it is over."""
        if self._at is None:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            text = f"no answer from the stream socket in time: {waited_for}"
            raise TimeoutError(errno.ETIMEDOUT, text)
        return left


def send_request(connection: socket.socket, request: Request) -> None:
    """Send a request, the first packet of a connection.

    Raises:
        ValueError: it cannot be asked for.
    """
    try:
        connection.send(pack(request), socket.MSG_NOSIGNAL)
    except LocalProtocolError as error:
        raise ValueError(error.text) from error
    except (BrokenPipeError, ConnectionResetError):
        pass  # a worker without room has answered and closed already: `_receive` finds out


def receive_answer(connection: socket.socket) -> tuple[Answer, socket.socket | None]:
    """One packet, and with PENDING and INCOMING the stream's socket, which is the caller's.

    Raises:
        OpeningCut: the worker is gone.
        PacketError: it said what is no answer.
        OSError: nothing has arrived in time, or no descriptor is left for the socket (EMFILE).
    """
    try:
        packet, ancillary, flags, _ = _receive_packet(connection)
    except ConnectionResetError:
        # The worker has closed with our request unread. That is told once, and before its answer.
        packet, ancillary, flags, _ = _receive_packet(connection)
    descriptors = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    with ExitStack() as undo:
        for descriptor in descriptors:
            undo.callback(os.close, descriptor)
        if not packet:
            raise OpeningCut
        answer = unpack_answer(packet)
        if len(descriptors) != (1 if isinstance(answer, Pending | Incoming) else 0):
            if flags & socket.MSG_CTRUNC and not descriptors:
                text = "no descriptor is left for the stream's socket (ulimit -n)"
                raise OSError(errno.EMFILE, text)
            raise PacketError(f"{type(answer).__name__} with {len(descriptors)} descriptors")
        stream = socket.socket(fileno=descriptors[0]) if descriptors else None
        undo.pop_all()
    return answer, stream


def _receive_packet(
    connection: socket.socket,
) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
    return connection.recvmsg(
        MAX_ANSWER_BYTES + 1,
        socket.CMSG_SPACE(_MOST_DESCRIPTORS * array("i").itemsize),
        socket.MSG_CMSG_CLOEXEC,
    )
