"""The epoll that programs get: as `select.epoll` is, and it knows who is registered."""

import os
import select
import socket
from collections.abc import Iterator

import pytest

from enclave_side.shim.socket_shim.epoll import Epoll, registrations


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_it_works_as_the_systems(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    with Epoll() as epoll:
        epoll.register(one)
        assert epoll.poll(1) == [(one.fileno(), select.EPOLLOUT)]
        epoll.modify(one.fileno(), select.EPOLLIN)
        assert epoll.poll(0) == []
        other.send(b"x")
        assert epoll.poll(timeout=1, maxevents=1) == [(one.fileno(), select.EPOLLIN)]
        with pytest.raises(FileExistsError):
            epoll.register(one, select.EPOLLIN)
        epoll.unregister(one)
        with pytest.raises(FileNotFoundError):
            epoll.unregister(one)
        with pytest.raises(FileNotFoundError):
            epoll.modify(one, select.EPOLLIN)
        assert not epoll.closed
    assert epoll.closed
    with pytest.raises(ValueError, match="closed epoll"):
        epoll.poll(0)


def test_it_takes_a_descriptor_over(ends: tuple[socket.socket, socket.socket]) -> None:
    with Epoll() as first, Epoll.fromfd(os.dup(first.fileno())) as second:
        first.register(ends[0], select.EPOLLOUT)
        assert second.poll(1) == [(ends[0].fileno(), select.EPOLLOUT)]


def test_what_is_registered_is_known(ends: tuple[socket.socket, socket.socket]) -> None:
    number = ends[0].fileno()
    with Epoll() as one, Epoll() as other:
        one.register(ends[0], select.EPOLLIN)
        other.register(ends[0])
        other.modify(ends[0], select.EPOLLOUT | select.EPOLLET)
        found = registrations(number)
        assert sorted(mask for _, mask in found) == sorted(
            (select.EPOLLIN, select.EPOLLOUT | select.EPOLLET)
        )
        assert {id(epoll) for epoll, _ in found} == {id(one), id(other)}
        one.unregister(ends[0])
        assert [epoll for epoll, _ in registrations(number)] == [other]
    assert registrations(number) == []


def test_a_number_that_is_another_socket_by_now_is_not_registered() -> None:
    with Epoll() as epoll, socket.socket() as first, socket.socket() as second:
        epoll.register(first, select.EPOLLIN)
        os.dup2(second.fileno(), first.fileno())
        assert registrations(first.fileno()) == []


def test_a_registration_that_cannot_be_changed_is_found(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    with Epoll() as epoll:
        epoll.register(ends[0], select.EPOLLIN | select.EPOLLEXCLUSIVE)
        assert [mask for _, mask in registrations(ends[0].fileno())] == [
            select.EPOLLIN | select.EPOLLEXCLUSIVE
        ]


def test_one_whose_descriptor_is_gone_has_nothing(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    epoll = Epoll()
    epoll.register(ends[0], select.EPOLLIN)
    epoll.close()
    assert registrations(ends[0].fileno()) == []
