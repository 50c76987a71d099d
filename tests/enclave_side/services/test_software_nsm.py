"""The software module on its socket: any program may ask, and none harms another."""

import array
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import cbor2
import pytest
import trio
import trio.testing

from enclave_side.services.software_nsm import CONNECTIONS_AT_ONCE, QUIET_SECONDS, ModuleServer
from tests.support.nsm_server import module_keys, module_root, software_nsm
from vsockproxy.attestation.nsm_messages import (
    MAX_REQUEST_BYTES,
    encode_describe_pcr,
    encode_extend_pcr,
    encode_get_random,
    encode_lock_pcr,
    parse_describe_pcr,
    parse_get_random,
)
from vsockproxy.attestation.software_memory import SoftwareMemory
from vsockproxy.attestation.software_nsm import SoftwareNsm
from vsockproxy.attestation.software_pki import write_root
from vsockproxy.log_lines import Level
from vsockproxy.nsm_device import Nsm

Socket = trio.socket.SocketType


class Kept:
    """A log, and a memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[Level, str]] = []
        self.saved: list[bytes] = []

    def write(self, level: Level, event: str, fields: object) -> None:
        del fields
        self.lines.append((level, event))


class Place:
    """Where a module serves."""

    def __init__(self, path: Path, module: SoftwareNsm, kept: Kept) -> None:
        self.path = path
        self.module = module
        self.kept = kept

    async def connect(self) -> Socket:
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        await sock.connect(os.fspath(self.path))
        return sock


@asynccontextmanager
async def served(module: SoftwareNsm | None = None) -> AsyncIterator[Place]:
    module = module or software_nsm()
    kept = Kept()

    def save() -> None:
        kept.saved.append(SoftwareMemory(write_root(module_root()), module.registers).encode())

    with (
        tempfile.TemporaryDirectory(prefix="vsockproxy-nsm-") as name,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener,
    ):
        path = Path(name, "nsm.sock")
        listener.bind(os.fspath(path))
        listener.listen(1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ModuleServer(module, kept, save).serve, listener)
            yield Place(path, module, kept)
            nursery.cancel_scope.cancel()


async def ask(sock: Socket, request: bytes) -> bytes:
    await sock.send(request)
    return await sock.recv(1 << 16)


async def test_a_connection_may_ask_again_and_again() -> None:
    async with served() as place:
        with await place.connect() as sock:
            for _ in range(3):
                assert len(parse_get_random(await ask(sock, encode_get_random()))) == 256


async def test_a_program_asks_by_its_own_means() -> None:
    async with served() as place:
        nsm = Nsm(str(place.path))
        assert await trio.to_thread.run_sync(nsm.random) != await trio.to_thread.run_sync(
            nsm.random
        )
        assert place.kept.saved == []


async def test_packets_that_are_no_request_get_a_refusal() -> None:
    async with served() as place:
        with await place.connect() as sock:
            for length in (1, MAX_REQUEST_BYTES, MAX_REQUEST_BYTES + 1, 100_000):
                code = "InputTooLarge" if length > MAX_REQUEST_BYTES else "InvalidOperation"
                assert cbor2.loads(await ask(sock, b"\xff" * length)) == {"Error": code}
            assert parse_get_random(await ask(sock, encode_get_random()))


async def test_an_empty_packet_ends_a_connection_and_no_other() -> None:
    async with served() as place:
        with await place.connect() as other, await place.connect() as sock:
            assert await ask(sock, b"") == b""
            assert parse_get_random(await ask(other, encode_get_random()))


async def test_descriptors_that_come_with_a_request_are_not_taken() -> None:
    async with served() as place:
        with await place.connect() as sock:
            assert parse_get_random(await ask(sock, encode_get_random()))
            before = len(os.listdir("/proc/self/fd"))
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
            await sock.sendmsg([encode_get_random()], passed)
            assert parse_get_random(await sock.recv(1 << 16))
            assert len(os.listdir("/proc/self/fd")) == before


async def test_a_register_is_saved_before_its_program_hears_of_it() -> None:
    async with served() as place:
        with await place.connect() as sock:
            await ask(sock, encode_extend_pcr(16, b"abc"))
            assert len(place.kept.saved) == 1
            await ask(sock, encode_lock_pcr(17))
            await ask(sock, encode_lock_pcr(17))  # refused: nothing has changed
            await ask(sock, encode_describe_pcr(17))
            assert len(place.kept.saved) == 2
        memory = SoftwareMemory.decode(place.kept.saved[-1])
    again = SoftwareNsm(module_root(), module_keys(), registers=memory.registers)
    async with served(again) as place:
        with await place.connect() as sock:
            state = parse_describe_pcr(await ask(sock, encode_describe_pcr(16)))
            assert state.value != bytes(48)
            assert parse_describe_pcr(await ask(sock, encode_describe_pcr(17))).is_locked


async def test_a_connection_that_says_nothing_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    del autojump_clock
    async with served() as place:
        with await place.connect() as sock:
            began = trio.current_time()
            assert await sock.recv(1) == b""
            assert trio.current_time() - began == pytest.approx(QUIET_SECONDS)


async def test_of_too_many_connections_the_quietest_is_closed() -> None:
    async with served() as place:
        quiet = [await place.connect() for _ in range(CONNECTIONS_AT_ONCE)]
        assert parse_get_random(await ask(quiet[-1], encode_get_random()))  # there is room for it
        # The second one speaks, and is no longer the quietest of all but the first.
        assert parse_get_random(await ask(quiet[1], encode_get_random()))
        with await place.connect() as sock, await place.connect() as another:
            assert parse_get_random(await ask(sock, encode_get_random()))
            assert parse_get_random(await ask(another, encode_get_random()))
            assert await quiet[0].recv(1) == b""
            assert await quiet[2].recv(1) == b""
            assert parse_get_random(await ask(quiet[1], encode_get_random()))
        for each in quiet:
            each.close()


async def test_one_that_does_not_read_keeps_nobody_waiting() -> None:
    async with served() as place:
        with await place.connect() as hostile, await place.connect() as sock:
            hostile.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
            with trio.move_on_after(0.2):  # until both directions are full
                while True:
                    await hostile.send(encode_get_random())
            assert parse_get_random(await ask(sock, encode_get_random()))


async def test_requests_are_answered_in_their_order() -> None:
    async with served() as place:
        order: list[int] = []

        async def one(number: int, sock: Socket) -> None:
            assert parse_get_random(await sock.recv(1 << 16))
            order.append(number)

        socks = [await place.connect() for _ in range(5)]
        for each in socks:
            await each.send(encode_get_random())
        async with trio.open_nursery() as nursery:
            for number, each in enumerate(socks):
                nursery.start_soon(one, number, each)
        assert sorted(order) == list(range(5))
        for each in socks:
            each.close()


async def test_a_memory_is_read_as_it_was_written() -> None:
    module = software_nsm()
    memory = SoftwareMemory(b"pem", module.registers)
    assert SoftwareMemory.decode(memory.encode()) == memory
    assert "pem" not in repr(memory)
    with pytest.raises(ValueError, match="more than 4096"):
        SoftwareMemory(bytes(4096)).encode()
    for wrong in (b"", b"\xff", cbor2.dumps({}), cbor2.dumps({"root": 1, "registers": []})):
        with pytest.raises(ValueError, match="no memory of a software module"):
            SoftwareMemory.decode(wrong)
