import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsockproxy.addresses import ANY_CID, Endpoint, TcpAddress, UnixAddress, VsockAddress
from vsockproxy.control.listeners import ListenerSet, WantedListener, socket_key
from vsockproxy.listening import Listener, ListenError, open_listener


@pytest.fixture
def listeners() -> Iterator[ListenerSet]:
    made = ListenerSet()
    yield made
    made.close()


def unix(path: Path, cid: int | None = None, mode: int | None = None) -> UnixAddress:
    return UnixAddress(str(path), cid=cid, mode=mode)


def wanted(*endpoints: Endpoint) -> list[WantedListener]:
    return [(f"listen[{index}]", "link", endpoint) for index, endpoint in enumerate(endpoints)]


def apply(listeners: ListenerSet, *endpoints: Endpoint) -> tuple[int, int]:
    """Change over; how many were opened and closed."""
    change = listeners.prepare(wanted(*endpoints))
    listeners.apply(change)
    assert [named.listener.endpoint for named in listeners.listeners] == list(endpoints)
    return len(change.opened), len(change.closing)


def is_open(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        pytest.param(UnixAddress("/a", cid=4), UnixAddress("/a", mode=0o660), True, id="a path"),
        pytest.param(UnixAddress("/a"), UnixAddress("/b"), False, id="two paths"),
        pytest.param(TcpAddress("localhost", 1), TcpAddress("127.0.0.1", 1), True, id="localhost"),
        pytest.param(TcpAddress("::1", 1), TcpAddress("127.0.0.1", 1), False, id="two versions"),
        pytest.param(VsockAddress(3, 1), VsockAddress(ANY_CID, 1), False, id="any CID is another"),
    ],
)
def test_endpoints_that_one_socket_serves(one: Endpoint, other: Endpoint, are_one: bool) -> None:
    assert (socket_key(one) == socket_key(other)) == are_one


def test_they_come_stay_and_go(listeners: ListenerSet, tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    assert apply(listeners, unix(a), unix(b)) == (2, 0)
    stays = b.stat().st_ino
    assert apply(listeners, unix(c), unix(b)) == (1, 1)
    assert b.stat().st_ino == stays
    assert [is_open(path) for path in (a, b, c)] == [False, True, True]
    assert not a.exists()
    assert apply(listeners, unix(c), unix(b)) == (0, 0)
    listeners.close()
    assert list(tmp_path.iterdir()) == []


def test_one_that_cannot_be_had_changes_nothing(listeners: ListenerSet, tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    apply(listeners, unix(a))
    before = listeners.listeners
    taken = open_listener(unix(c))
    with pytest.raises(ListenError, match="it is in use"):
        listeners.prepare(wanted(unix(b), unix(c)))
    taken.close()
    assert listeners.listeners is before
    assert is_open(a)
    assert not b.exists()


def test_cid_and_mode_change_in_place(listeners: ListenerSet, tmp_path: Path) -> None:
    path = tmp_path / "a"
    apply(listeners, unix(path, cid=16))
    before = path.stat()
    assert apply(listeners, unix(path, cid=17, mode=0o666)) == (0, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert apply(listeners, unix(path, cid=17)) == (0, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino == before.st_ino


def test_a_socket_that_somebody_removed_is_made_anew(
    listeners: ListenerSet, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    apply(listeners, unix(path))
    path.unlink()
    assert apply(listeners, unix(path)) == (1, 1)
    assert is_open(path)


def test_passed_sockets_are_used_once_and_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        listener = Listener(unix(path), passed.dup())
        listeners = ListenerSet({socket_key(unix(path)): listener})
        assert apply(listeners, unix(path, cid=16, mode=0o666)) == (0, 0)
        assert apply(listeners, unix(path, cid=17)) == (0, 0)
        assert is_open(path)
        assert apply(listeners, unix(tmp_path / "b")) == (1, 1)
        assert path.exists()
        with pytest.raises(ListenError, match="it is in use"):
            listeners.prepare(wanted(unix(path)))
        listeners.close()


def test_all_but_one_kind_are_closed(listeners: ListenerSet, tmp_path: Path) -> None:
    link, forward = tmp_path / "link", tmp_path / "forward"
    listeners.apply(listeners.prepare([("l", "link", unix(link)), ("f", "forward", unix(forward))]))
    listeners.close(all_but="link")
    assert [is_open(path) for path in (link, forward)] == [True, False]
    assert [named.name for named in listeners.listeners] == ["l"]
