import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from vsockproxy.addresses import ANY_CID, Endpoint, TcpAddress, UnixAddress, VsockAddress
from vsockproxy.listening import VSOCK_BUFFER_BYTES, ListenError, open_listener

ANY_PORT = 0xFFFF_FFFF
"""VMADDR_PORT_ANY."""


def unix(path: Path, mode: int | None = None) -> UnixAddress:
    return UnixAddress(str(path), mode=mode)


@pytest.mark.parametrize(
    ("mode", "umask", "expected"),
    [
        pytest.param(None, 0o022, 0o600, id="0600 unless it says otherwise"),
        pytest.param(0o660, 0o077, 0o660, id="?mode= whatever the umask"),
        pytest.param(0o777, 0o077, 0o777, id="all bits"),
        pytest.param(0o000, 0o000, 0o000, id="no bits"),
    ],
)
def test_mode_of_a_unix_socket(mode: int | None, umask: int, expected: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        listener = open_listener(unix(tmp_path / "s", mode))
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == expected
        assert os.umask(umask) == umask
        listener.close()
    finally:
        os.umask(before)


def test_it_accepts_without_waiting_and_is_closed_at_exec(tmp_path: Path) -> None:
    listener = open_listener(unix(tmp_path / "s"))
    with pytest.raises(BlockingIOError):
        listener.socket.accept()
    assert not listener.socket.get_inheritable()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        listener.socket.accept()[0].close()
    listener.close()


def test_a_unix_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    open_listener(unix(tmp_path / "s")).close()
    assert list(tmp_path.iterdir()) == []


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s"))
        stale.listen()
    listener = open_listener(unix(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    listener.close()


def test_a_unix_socket_in_use_stays(tmp_path: Path) -> None:
    first = open_listener(unix(tmp_path / "s"))
    with pytest.raises(ListenError, match="it is in use: stop who listens there"):
        open_listener(unix(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    first.close()


def test_a_unix_socket_whose_queue_is_full_is_in_use(tmp_path: Path) -> None:
    first = open_listener(unix(tmp_path / "s"), backlog=0)
    clients = []
    for _ in range(3):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect_ex(str(tmp_path / "s"))
        clients.append(client)
    with pytest.raises(ListenError, match="it is in use"):
        open_listener(unix(tmp_path / "s"))
    for client in clients:
        client.close()
    first.close()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ListenError, match="exists and is no socket: remove it"):
        open_listener(unix(tmp_path / "s"))
    assert (tmp_path / "s").read_text() == "precious"


def test_a_link_to_a_stale_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "s").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListenError, match="no socket"):
        open_listener(unix(tmp_path / "s"))
    assert (tmp_path / "s").is_symlink()


def test_a_successors_unix_socket_is_not_removed(tmp_path: Path) -> None:
    first = open_listener(unix(tmp_path / "s"))
    os.unlink(tmp_path / "s")
    second = open_listener(unix(tmp_path / "s"))
    first.close()
    assert (tmp_path / "s").is_socket()
    second.close()


def test_closing_after_the_name_is_gone(tmp_path: Path) -> None:
    listener = open_listener(unix(tmp_path / "s"))
    os.unlink(tmp_path / "s")
    listener.close()
    assert listener.socket.fileno() == -1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_tcp(host: str) -> None:
    listener = open_listener(TcpAddress(host, 0))
    address, port, *_ = listener.socket.getsockname()
    assert address == ("127.0.0.1" if host == "localhost" else host)
    assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    with socket.create_connection((address, port)):
        listener.socket.accept()[0].close()
    listener.close()


def test_both_families_fit_on_one_port() -> None:
    first = open_listener(TcpAddress("0.0.0.0", 0))
    second = open_listener(TcpAddress("::", first.socket.getsockname()[1]))
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        pytest.param(UnixAddress("/nowhere/s"), "its directory does not exist", id="no directory"),
        pytest.param(UnixAddress("/etc/passwd/s"), "its directory is no directory", id="a file"),
        pytest.param(TcpAddress("192.0.2.1", 0), "no such address", id="another's address"),
    ],
)
def test_what_cannot_be_bound(endpoint: Endpoint, text: str) -> None:
    with pytest.raises(ListenError) as raised:
        open_listener(endpoint)
    assert str(raised.value).startswith(f"cannot listen on {endpoint}: ")
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_taken_tcp_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = TcpAddress("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ListenError, match=f"{endpoint}: it is in use"):
            open_listener(endpoint)


def test_a_python_without_vsock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_VSOCK")
    with pytest.raises(ListenError, match="this Python was built without AF_VSOCK"):
        open_listener(VsockAddress(ANY_CID, 5000))


def has_vsock() -> bool:
    """Whether a socket can be made; nothing is dialled."""
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except (AttributeError, OSError):
        return False
    return True


def test_a_kernel_without_vsock(monkeypatch: pytest.MonkeyPatch) -> None:
    if has_vsock():

        def refuse(*arguments: int) -> socket.socket:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT), arguments)

        monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(ListenError, match="the kernel has no vsock: load its module"):
        open_listener(VsockAddress(ANY_CID, 5000))


@pytest.mark.skipif(not has_vsock(), reason="needs a kernel with vsock, to bind and not to dial")
def test_vsock_takes_any_cid_and_large_buffers() -> None:
    listener = open_listener(VsockAddress(ANY_CID, ANY_PORT))
    cid, port = listener.socket.getsockname()
    assert cid == ANY_CID
    assert port >= 1024
    for option in (socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE, socket.SO_VM_SOCKETS_BUFFER_SIZE):
        assert listener.socket.getsockopt(socket.AF_VSOCK, option) == VSOCK_BUFFER_BYTES
    with pytest.raises(ListenError, match=f"vsock://any:{port}: it is in use"):
        open_listener(VsockAddress(ANY_CID, port))
    listener.close()
