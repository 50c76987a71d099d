import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enclave_side.heartbeat import HEARTBEAT, LISTENER, HeartbeatError, send_heartbeat
from vsockproxy.addresses import TcpAddress, UnixAddress


@contextmanager
def nitro_cli(path: Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """Takes one connection and a byte, and answers; None leaves it waiting."""
    heard: list[bytes] = []
    released = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(10))
                if answer is None:
                    released.wait(30)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield heard
        finally:
            released.set()
            thread.join()


def test_where_nitro_cli_listens() -> None:
    assert str(LISTENER) == "vsock://3:9000"
    assert HEARTBEAT.hex() == "b7"


def test_the_byte_goes_there_and_comes_back(tmp_path: Path) -> None:
    with nitro_cli(tmp_path / "s", HEARTBEAT) as heard:
        send_heartbeat(UnixAddress(str(tmp_path / "s")))
    assert heard == [HEARTBEAT]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(b"\x00", "was answered by 00", id="another byte"),
        pytest.param(b"", "was answered by nothing", id="the end"),
        pytest.param(None, "failed: timed out", id="no answer in time"),
    ],
)
def test_another_answer_is_an_error(answer: bytes | None, text: str, tmp_path: Path) -> None:
    with nitro_cli(tmp_path / "s", answer), pytest.raises(HeartbeatError, match=text):
        send_heartbeat(UnixAddress(str(tmp_path / "s")), timeout=0.5)


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HeartbeatError, match=r"failed: No such file.*machine\.heartbeat: off"):
        send_heartbeat(UnixAddress(str(tmp_path / "s")))
    with pytest.raises(HeartbeatError, match="neither vsock nor a unix socket"):
        send_heartbeat(TcpAddress("127.0.0.1", 1))
