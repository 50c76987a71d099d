import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enclave_side.stream_socket import open_stream_socket
from vsockproxy.client.opening import connect
from vsockproxy.listening import Listener, ListenError


@contextmanager
def opened(path: Path) -> Iterator[Listener]:
    listener = open_stream_socket(str(path))
    try:
        yield listener
    finally:
        listener.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    former = os.umask(request.param)
    yield
    os.umask(former)


@pytest.mark.usefixtures("_umask")
def test_every_user_may_connect_whatever_the_umask_is(tmp_path: Path) -> None:
    path = tmp_path / "vsockproxy" / "streams.sock"
    with opened(path):
        assert mode_of(path) == 0o666
        assert mode_of(path.parent) == 0o755
        connect(str(path), 1.0).close()
    assert not path.exists()


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "private"
    directory.mkdir(mode=0o700)
    for _ in range(2):
        with opened(directory / "streams.sock"):
            assert mode_of(directory) == 0o700


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "streams.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as former:
        former.bind(str(path))
    with opened(path):
        connect(str(path), 1.0).close()


def test_one_that_is_served_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "streams.sock"
    with opened(path):
        with pytest.raises(ListenError, match="it is in use"):
            open_stream_socket(str(path))
        connect(str(path), 1.0).close()


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "streams.sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="exists and is no socket"):
        open_stream_socket(str(path))
    assert path.read_text() == "precious"


def test_directories_above_its_own_are_not_made(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="its directory cannot be made: No such file"):
        open_stream_socket(str(tmp_path / "a" / "b" / "streams.sock"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ListenError, match="is no directory"):
        open_stream_socket(str(tmp_path / "file" / "streams.sock"))
