"""Dialling on loopback and unix sockets: who is tried, when, what is closed, what is said."""

import errno
import os
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import pytest

from vsockproxy.addresses import IpAddress, TcpAddress, UnixAddress
from vsockproxy.dataplane import dialling, loop
from vsockproxy.dataplane.dialling import (
    DialError,
    SourceAddresses,
    connect,
    dial,
    interleave,
    peer_fault,
)

T = TypeVar("T")

LONG = 30.0
"""Seconds that no test waits for when all is well."""


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def bounded() -> T:
        before = os.listdir("/proc/self/fd")
        async with loop.timeout(LONG):
            result = await main()
        assert os.listdir("/proc/self/fd") == before, "descriptors were left open"
        return result

    return loop.run(bounded())


def addresses(*texts: str) -> list[IpAddress]:
    return [ip_address(text) for text in texts]


def listening(host: str = "127.0.0.1", port: int = 0, *, shared: bool = False) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    sock.listen()
    return sock


@contextmanager
def silent_everywhere() -> Iterator[int]:
    """A port on which all of 127.0.0.0/8 is silent: its backlog is full, so SYNs are dropped."""
    with listening("0.0.0.0", shared=True) as hole:
        hole.listen(0)
        port = hole.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield port


def closed_port() -> int:
    """A port that nothing listens on, and that the kernel gives to nobody else just now."""
    with listening() as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        pytest.param([], [], id="nothing stays nothing"),
        pytest.param(
            ["192.0.2.1", "192.0.2.2"], ["192.0.2.1", "192.0.2.2"], id="one family keeps its order"
        ),
        pytest.param(
            ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"],
            ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"],
            id="families alternate and IPv6 is first",
        ),
        pytest.param(
            ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"],
            ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"],
            id="the rest of the longer family follows",
        ),
        pytest.param(
            ["192.0.2.1", "192.0.2.1", "2001:db8::1", "192.0.2.1"],
            ["2001:db8::1", "192.0.2.1"],
            id="no address is tried twice",
        ),
    ],
)
def test_order_of_addresses(given: list[str], ordered: list[str]) -> None:
    assert interleave(addresses(*given)) == addresses(*ordered)


def test_dial_gives_a_connected_socket_that_does_not_block() -> None:
    async def main() -> None:
        with listening() as listener:
            port = listener.getsockname()[1]
            result = await dial(addresses("127.0.0.1"), port, timeout_seconds=LONG)
            accepted, _ = listener.accept()
            with result.socket, accepted:
                assert result.address == ip_address("127.0.0.1")
                assert result.socket.getpeername() == ("127.0.0.1", port)
                assert result.socket.gettimeout() == 0.0

    run(main)


def test_dial_speaks_ipv6() -> None:
    try:
        listener = listening("::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")

    async def main() -> None:
        port = listener.getsockname()[1]
        result = await dial(addresses("127.0.0.1", "::1"), port, timeout_seconds=LONG)
        with result.socket:
            assert result.address == ip_address("::1")

    with listener:
        run(main)


def test_dialled_sockets_are_tuned() -> None:
    async def main() -> dict[str, int]:
        with listening() as listener:
            port = listener.getsockname()[1]
            result = await dial(addresses("127.0.0.1"), port, timeout_seconds=LONG)
            with result.socket as sock:
                return {
                    name: sock.getsockopt(level, getattr(socket, name))
                    for level, name in [
                        (socket.IPPROTO_TCP, "TCP_NODELAY"),
                        (socket.SOL_SOCKET, "SO_KEEPALIVE"),
                        (socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
                        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"),
                    ]
                }

    assert run(main) == {
        "TCP_NODELAY": 1,
        "SO_KEEPALIVE": 1,
        "TCP_KEEPIDLE": 60,
        "TCP_USER_TIMEOUT": 600_000,
    }


def test_the_next_address_is_tried_at_once_when_one_refuses() -> None:
    async def main() -> IpAddress:
        with listening("127.0.0.2") as listener:
            port = listener.getsockname()[1]
            result = await dial(
                addresses("127.0.0.1", "127.0.0.2"),
                port,
                timeout_seconds=LONG,
                stagger_seconds=2 * LONG,  # had it waited for this, the test would time out
            )
            result.socket.close()
            return result.address

    assert run(main) == ip_address("127.0.0.2")


def test_the_next_address_is_tried_after_the_stagger_when_one_is_silent() -> None:
    async def main(port: int) -> IpAddress:
        with listening("127.0.0.2", port, shared=True):
            result = await dial(
                addresses("127.0.0.1", "127.0.0.2"),
                port,
                timeout_seconds=LONG,
                stagger_seconds=0.001,
            )
            result.socket.close()
            return result.address

    with silent_everywhere() as port:
        assert run(lambda: main(port)) == ip_address("127.0.0.2")


def test_every_address_is_tried_in_its_time_though_only_a_few_at_once() -> None:
    stagger_seconds = 0.002
    silent = [f"127.0.1.{last}" for last in range(3 * dialling.MOST_ATTEMPTS_AT_ONCE)]
    held: list[int] = []

    async def main(port: int) -> IpAddress:
        with listening("127.0.0.2", port, shared=True):
            before = len(os.listdir("/proc/self/fd"))

            async def watch() -> None:
                while True:
                    held.append(len(os.listdir("/proc/self/fd")) - before)
                    await loop.sleep(stagger_seconds / 2)

            watcher = loop.spawn(watch(), "watch")
            started = loop.now()
            result = await dial(
                addresses(*silent, "127.0.0.2"),
                port,
                timeout_seconds=LONG,
                stagger_seconds=stagger_seconds,
            )
            # An attempt that gives way does not hurry those after it.
            assert loop.now() - started > 0.9 * len(silent) * stagger_seconds
            watcher.cancel()
            result.socket.close()
            return result.address

    with silent_everywhere() as port:
        assert run(lambda: main(port)) == ip_address("127.0.0.2")
    assert max(held) <= dialling.MOST_ATTEMPTS_AT_ONCE


def dial_error(given: list[str], port: int, timeout_seconds: float = LONG) -> DialError:
    async def main() -> DialError:
        with pytest.raises(DialError) as caught:
            await dial(
                addresses(*given), port, timeout_seconds=timeout_seconds, stagger_seconds=0.001
            )
        return caught.value

    return run(main)


def test_all_refused() -> None:
    port = closed_port()
    error = dial_error(["127.0.0.1", "127.0.0.2"], port)
    assert error.kind == "refused"
    assert error.text == (
        f"127.0.0.1:{port}: Connection refused; 127.0.0.2:{port}: Connection refused"
    )


def test_all_silent_until_the_timeout() -> None:
    with silent_everywhere() as port:
        error = dial_error(["127.0.0.1", "127.0.0.2"], port, 0.02)
    assert error.kind == "timed_out"
    assert error.text == (
        f"127.0.0.1:{port}: no answer in 0.02 s; 127.0.0.2:{port}: no answer in 0.02 s"
    )


def test_a_refusal_outweighs_silence_and_silence_outweighs_no_route() -> None:
    unroutable = "255.255.255.255"  # connect fails at once, with EACCES or ENETUNREACH
    with silent_everywhere() as port:
        assert dial_error([unroutable, "127.0.0.1"], port, 0.02).kind == "timed_out"
    port = closed_port()
    assert dial_error([unroutable, "127.0.0.1"], port).kind == "refused"
    error = dial_error([unroutable], port)
    assert error.kind == "unreachable"
    assert error.text.startswith(f"{unroutable}:{port}: ")


def test_the_kernel_may_not_change_the_address_that_was_checked() -> None:
    with listening() as listener:
        port = listener.getsockname()[1]
        error = dial_error(["0.0.0.0"], port)  # which connects to 127.0.0.1
    assert error.kind == "refused"
    assert error.text == f"0.0.0.0:{port}: connected to 127.0.0.1 port {port} instead"


def test_a_connection_to_itself_is_none() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        own = sock.getsockname()
        sock.connect(own)
        assert peer_fault(sock, ip_address("127.0.0.1"), own[1]) == (
            "connected to itself: nothing listens there"
        )


def test_a_peer_that_has_gone_already_is_a_fault() -> None:
    with socket.socket() as sock:
        assert peer_fault(sock, ip_address("127.0.0.1"), 1) == os.strerror(errno.ENOTCONN)


def test_no_address_to_dial() -> None:
    error = dial_error([], 443)
    assert (error.kind, error.text) == ("unreachable", "port 443: there is no address to dial")


def test_no_descriptor_left() -> None:
    async def main() -> DialError:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(DialError) as caught:
                await dial(addresses("127.0.0.1"), 443, timeout_seconds=LONG)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return caught.value

    error = run(main)
    assert (error.kind, error.text) == ("unreachable", "127.0.0.1:443: Too many open files")


def test_cancelling_a_dial_closes_its_sockets() -> None:
    async def main(port: int) -> None:
        before = os.listdir("/proc/self/fd")
        task = loop.spawn(
            dial(
                addresses("127.0.0.1", "127.0.0.2"),
                port,
                timeout_seconds=LONG,
                stagger_seconds=0.0001,
            ),
            "dial",
        )
        while len(os.listdir("/proc/self/fd")) < len(before) + 2:
            await loop.sleep(0)
        task.cancel()
        with pytest.raises(loop.CancelledError):
            await task
        assert os.listdir("/proc/self/fd") == before

    with silent_everywhere() as port:
        run(lambda: main(port))


@pytest.mark.parametrize("turns", range(6))
def test_cancelling_a_dial_at_any_moment_leaves_no_socket(turns: int) -> None:
    """Among the moments is the one between success and the task's next turn."""

    async def main() -> None:
        with listening() as listener:
            before = os.listdir("/proc/self/fd")
            port = listener.getsockname()[1]
            task = loop.spawn(dial(addresses("127.0.0.1"), port, timeout_seconds=LONG), "dial")
            for _ in range(turns):
                await loop.sleep(0)
            task.cancel()
            try:
                (await task).socket.close()
            except loop.CancelledError:
                assert task.cancelled()
            assert os.listdir("/proc/self/fd") == before

    run(main)


def test_connect_to_a_tcp_endpoint() -> None:
    async def main() -> None:
        with listening() as listener:
            port = listener.getsockname()[1]
            for host in ("127.0.0.1", "localhost"):
                with await connect(TcpAddress(host, port), timeout_seconds=LONG) as sock:
                    assert sock.getpeername() == ("127.0.0.1", port)
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    run(main)


def test_connect_to_a_unix_endpoint(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "link"))
            listener.listen()
            endpoint = UnixAddress(str(tmp_path / "link"))
            with await connect(endpoint, timeout_seconds=LONG) as sock:
                assert sock.getpeername() == str(tmp_path / "link")
                assert sock.gettimeout() == 0.0

    run(main)


def connect_error(endpoint: UnixAddress | TcpAddress, timeout_seconds: float = LONG) -> DialError:
    async def main() -> DialError:
        with pytest.raises(DialError) as caught:
            await connect(endpoint, timeout_seconds=timeout_seconds)
        return caught.value

    return run(main)


def test_connect_says_why_it_failed(tmp_path: Path) -> None:
    absent = UnixAddress(str(tmp_path / "absent"))
    error = connect_error(absent)
    assert (error.kind, error.text) == ("refused", f"{absent}: No such file or directory")

    port = closed_port()
    error = connect_error(TcpAddress("127.0.0.1", port))
    assert (error.kind, error.text) == ("refused", f"127.0.0.1:{port}: Connection refused")

    with silent_everywhere() as port:
        error = connect_error(TcpAddress("127.0.0.1", port), 0.01)
    assert error.kind == "timed_out"
    assert error.text == f"127.0.0.1:{port}: no answer in 0.01 s"


def test_a_full_backlog_of_a_unix_listener_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "busy")

    async def main() -> None:
        task = loop.spawn(connect(UnixAddress(path), timeout_seconds=LONG), "connect")
        await loop.sleep(0)  # the first try has met the full backlog
        accepted, _ = listener.accept()
        with accepted, await task as sock:
            assert sock.getpeername() == path

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        error = connect_error(UnixAddress(path), 0.02)
        assert (error.kind, error.text) == ("timed_out", f"unix://{path}: no answer in 0.02 s")
        run(main)


def test_cancelling_a_connect_closes_its_socket() -> None:
    async def main(port: int) -> None:
        before = os.listdir("/proc/self/fd")
        task = loop.spawn(connect(TcpAddress("127.0.0.1", port), timeout_seconds=LONG), "connect")
        await loop.sleep(0)
        task.cancel()
        with pytest.raises(loop.CancelledError):
            await task
        assert os.listdir("/proc/self/fd") == before

    with silent_everywhere() as port:
        run(lambda: main(port))


def source_addresses(*texts: str) -> SourceAddresses:
    return {address.version: address for address in addresses(*texts)}


@pytest.mark.parametrize("own", ["127.0.0.9", "::1"])
def test_a_socket_comes_from_its_source_address_and_takes_no_port_beforehand(own: str) -> None:
    to = "::1" if ":" in own else "127.0.0.1"

    async def main() -> None:
        with listening(to) as listener:
            result = await dial(
                addresses(to),
                listener.getsockname()[1],
                timeout_seconds=LONG,
                source_addresses=source_addresses(own),
            )
            with result.socket as sock:
                assert sock.getsockname()[0] == own
                assert sock.getsockopt(socket.IPPROTO_IP, dialling.IP_BIND_ADDRESS_NO_PORT) == 1

    run(main)


def test_a_version_without_a_source_address_is_not_dialled() -> None:
    async def main() -> None:
        with listening("127.0.0.1") as listener:
            port = listener.getsockname()[1]
            own = source_addresses("127.0.0.9")
            result = await dial(
                addresses("::1", "127.0.0.1"), port, timeout_seconds=LONG, source_addresses=own
            )
            with result.socket as sock:
                assert sock.getpeername()[0] == "127.0.0.1"
            with pytest.raises(DialError) as caught:
                await dial(addresses("::1"), port, timeout_seconds=LONG, source_addresses=own)
            assert caught.value.kind == "unreachable"
            assert "not dialled: source_address has no IPv6 address" in caught.value.text

    run(main)


def test_a_source_address_that_the_machine_lacks_is_named_with_its_key() -> None:
    async def main() -> None:
        with pytest.raises(DialError) as caught:
            await dial(
                addresses("127.0.0.1"),
                closed_port(),
                timeout_seconds=LONG,
                source_addresses=source_addresses("192.0.2.77"),
            )
        assert "cannot be dialled from 192.0.2.77 (source_address)" in caught.value.text

    run(main)
