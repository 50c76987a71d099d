"""The byte by which an enclave's init tells nitro-cli that it is up.

AWS's init connects to port 9000 of CID 3, writes 0xB7, and goes on when it gets 0xB7 back
(aws-nitro-enclaves-sdk-bootstrap, init/init.c, enclave_ready; QEMU's hw/nitro/heartbeat.c is the
other end). An image whose init is ours has to do so itself, or `nitro-cli run-enclave` fails.
"""

import socket
from typing import Final

from vsockproxy.addresses import Endpoint, UnixAddress, VsockAddress
from vsockproxy.errors import VsockproxyError

__all__ = ("HEARTBEAT", "LISTENER", "HeartbeatError", "send_heartbeat")

HEARTBEAT: Final = b"\xb7"
LISTENER: Final = VsockAddress(3, 9000)
_ANSWER_SECONDS: Final = 10.0
"""nitro-cli answers at once, or is not there."""


class HeartbeatError(VsockproxyError):
    """Nobody answered the heartbeat."""


def send_heartbeat(listener: Endpoint = LISTENER, *, timeout: float = _ANSWER_SECONDS) -> None:
    """Send the byte, and wait for it to come back.

    Args:
        listener: where nitro-cli listens.
        timeout: seconds for each step.

    Raises:
        HeartbeatError: nobody is there, or the answer is not the byte.
    """
    mend = "write machine.heartbeat: off if nitro-cli did not start this machine"
    try:
        with _connect(listener, timeout) as connection:
            connection.sendall(HEARTBEAT)
            answer = connection.recv(1)
    except OSError as error:
        text = error.strerror or str(error)
        raise HeartbeatError(f"the heartbeat to {listener} failed: {text}: {mend}") from error
    if answer != HEARTBEAT:
        was = answer.hex() or "nothing"
        raise HeartbeatError(f"the heartbeat to {listener} was answered by {was}: {mend}")


def _connect(listener: Endpoint, timeout: float) -> socket.socket:
    address: str | tuple[int, int]
    match listener:
        case VsockAddress(cid=cid, port=port):
            family, address = socket.AF_VSOCK, (cid, port)
        case UnixAddress(path=path):
            family, address = socket.AF_UNIX, path
        case _:
            raise OSError(f"{listener} is neither vsock nor a unix socket")
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection
