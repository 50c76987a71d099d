import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vsockproxy.addresses import ANY_CID, Endpoint, TcpAddress, UnixAddress, VsockAddress
from vsockproxy.control.activation import adopt, match_sockets, take_passed
from vsockproxy.control.listeners import socket_key
from vsockproxy.listening import VSOCK_BUFFER_BYTES, ListenError

PID = 4711


@pytest.mark.parametrize(
    ("variables", "passed"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param(
            {"LISTEN_PID": "4711", "LISTEN_FDS": "2"}, {3: "unknown", 4: "unknown"}, id="no names"
        ),
        pytest.param(
            {"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "link:forward"},
            {3: "link", 4: "forward"},
            id="names",
        ),
        pytest.param({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, {}, id="for another process"),
        pytest.param({"LISTEN_FDS": "2"}, {}, id="for nobody"),
        pytest.param({"LISTEN_PID": "4711", "LISTEN_FDS": "0"}, {}, id="no sockets"),
    ],
)
def test_what_was_passed(variables: dict[str, str], passed: dict[int, str]) -> None:
    environment = {"PATH": "/bin", **variables}
    assert take_passed(environment, PID) == passed
    assert environment == {"PATH": "/bin"}, "children do not take them for theirs"


@pytest.mark.parametrize(
    ("count", "names", "what"),
    [
        pytest.param("two", "", "LISTEN_FDS='two' is no number", id="no number"),
        pytest.param("-1", "", "LISTEN_FDS='-1' is no number", id="a negative one"),
        pytest.param("2", "one", "1 names for 2 sockets", id="names that do not fit"),
    ],
)
def test_variables_without_sense(count: str, names: str, what: str) -> None:
    variables = {"LISTEN_PID": str(PID), "LISTEN_FDS": count, "LISTEN_FDNAMES": names}
    with pytest.raises(ListenError, match=what):
        take_passed(variables, PID)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def listening(stack: ExitStack, family: int, address: object) -> socket.socket:
    sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(address)  # type: ignore[arg-type]  # of that family
    sock.listen()
    return sock


def passed_on(stack: ExitStack, sock: socket.socket) -> dict[str, socket.socket]:
    """A socket as a process finds it that it was passed to."""
    descriptor = os.dup(sock.fileno())
    adopted = adopt({descriptor: "name"})
    for each in adopted.values():
        stack.enter_context(each)
    return adopted


def test_a_passed_socket_stays_here_and_does_not_block(stack: ExitStack) -> None:
    sock = listening(stack, socket.AF_INET, ("127.0.0.1", 0))
    sock.set_inheritable(True)
    (adopted,) = passed_on(stack, sock).values()
    assert not adopted.get_inheritable()
    assert adopted.gettimeout() == 0


TCP = {
    "the same address": (socket.AF_INET, "127.0.0.1", "127.0.0.1", True),
    "localhost": (socket.AF_INET, "127.0.0.1", "localhost", True),
    "another address": (socket.AF_INET, "127.0.0.1", "127.0.0.2", False),
    "every address": (socket.AF_INET, "0.0.0.0", "0.0.0.0", True),
    "every address is not one": (socket.AF_INET, "0.0.0.0", "127.0.0.1", False),
    "IPv6": (socket.AF_INET6, "::1", "::1", True),
    "both versions for IPv4": (socket.AF_INET6, "::", "0.0.0.0", True),
    "both versions for IPv6": (socket.AF_INET6, "::", "::", True),
}


@pytest.mark.parametrize("case", TCP)
def test_tcp_sockets_are_matched_by_address(case: str, stack: ExitStack) -> None:
    family, bound, wanted, fits = TCP[case]
    sock = listening(stack, family, (bound, 0))
    port: int = sock.getsockname()[1]
    endpoint = TcpAddress(wanted, port)
    adopted = passed_on(stack, sock)
    if fits:
        found = match_sockets(adopted, [TcpAddress(wanted, 1), endpoint])
        assert list(found) == [socket_key(endpoint)]
        assert found[socket_key(endpoint)].endpoint == endpoint
        assert found[socket_key(endpoint)].identity is None, "its name is not ours to remove"
    else:
        with pytest.raises(ListenError, match="nowhere in the configuration"):
            match_sockets(adopted, [endpoint])


def test_unix_sockets_are_matched_by_path(stack: ExitStack, tmp_path: Path) -> None:
    sock = listening(stack, socket.AF_UNIX, str(tmp_path / "link.sock"))
    endpoint = UnixAddress(str(tmp_path / "link.sock"), cid=16, mode=0o660)
    found = match_sockets(passed_on(stack, sock), [endpoint])
    assert found[socket_key(endpoint)].endpoint == endpoint


class VsockLike(socket.socket):
    """A listening socket that says that it is a vsock socket; bound to a family that it can have.

    A real one needs a vsock transport; tests on a real vsock have that.
    """

    options: dict[tuple[int, int], object]
    address: tuple[int, int] = (ANY_CID, 5000)

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_VSOCK

    def getsockname(self) -> tuple[int, int]:
        return self.address

    def setsockopt(self, level: int, option: int, value: object) -> None:  # type: ignore[override]  # the one form in use
        self.options[level, option] = value


@pytest.mark.parametrize(
    ("bound", "wanted", "fits"),
    [
        pytest.param((ANY_CID, 5000), VsockAddress(ANY_CID, 5000), True, id="any CID"),
        pytest.param((3, 5000), VsockAddress(3, 5000), True, id="one CID"),
        pytest.param((ANY_CID, 5000), VsockAddress(ANY_CID, 5001), False, id="another port"),
        pytest.param((3, 5000), VsockAddress(ANY_CID, 5000), False, id="one CID is not any"),
    ],
)
def test_vsock_sockets_are_matched_and_get_their_buffer(
    bound: tuple[int, int], wanted: Endpoint, fits: bool
) -> None:
    with VsockLike(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.options = {}
        sock.address = bound
        if not fits:
            with pytest.raises(ListenError, match=f"a socket at vsock://.*:{bound[1]}"):
                match_sockets({f"a socket at vsock://x:{bound[1]}": sock}, [wanted])
            return
        assert list(match_sockets({"a socket": sock}, [wanted])) == [socket_key(wanted)]
        assert list(sock.options) == [
            (socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE),
            (socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE),
        ]
        assert set(sock.options.values()) == {VSOCK_BUFFER_BYTES}


def test_strangers_are_named(stack: ExitStack, tmp_path: Path) -> None:
    sock = listening(stack, socket.AF_UNIX, str(tmp_path / "other.sock"))
    with pytest.raises(ListenError) as raised:
        match_sockets(passed_on(stack, sock), [VsockAddress(ANY_CID, 5000)])
    assert f"(name) at unix://{tmp_path}/other.sock" in str(raised.value)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_only_listening_stream_sockets_are_taken(
    kind: socket.SocketKind, stack: ExitStack, tmp_path: Path
) -> None:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    sock.bind(str(tmp_path / "s"))
    if kind == socket.SOCK_SEQPACKET:
        sock.listen()
    with pytest.raises(ListenError, match=r"\(name\) at unix://.* no listening stream socket"):
        passed_on(stack, sock)


def test_what_is_no_socket_is_refused() -> None:
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(ListenError, match=rf"descriptor {read_end} \(name\) .* no socket"):
            adopt({read_end: "name"})
        os.close(write_end)
        with pytest.raises(ListenError, match="no socket"):
            adopt({write_end: "name"})
    finally:
        os.close(read_end)
