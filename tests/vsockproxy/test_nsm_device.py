"""One request, one response: with a device, as far as there is one, and over a socket."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest

from tests.support.nsm_server import document_fields, nsm_socket
from tests.support.observation import open_sockets
from vsockproxy.attestation.nsm_errors import (
    NsmFailed,
    NsmMissing,
    NsmRefused,
    NsmRequestError,
    NsmResponseError,
    NsmTimedOut,
)
from vsockproxy.attestation.nsm_messages import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES
from vsockproxy.attestation.software_nsm import MODULE_ID, SOFTWARE_PCRS
from vsockproxy.nsm_device import Nsm, has_nsm, nsm_location
from vsockproxy.nsm_locations import NSM_DEVICE, NSM_VARIABLE


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vsockproxy-nsm-") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    before = open_sockets()
    yield
    assert open_sockets() == before


class Kernel:
    """What the driver does with NSM_IOCTL_RAW, as drivers/misc/nsm.c has it."""

    def __init__(self, response: bytes = b"", error: int = 0) -> None:
        self.response = response
        self.error = error
        self.requests: list[bytes] = []
        self.rooms: list[int] = []

    def ioctl(self, descriptor: int, command: int, message: bytearray) -> int:
        os.fstat(descriptor)
        assert command == 0xC0200A00
        address, length, room_address, room = struct.unpack("=QQQQ", message)
        self.requests.append(ctypes.string_at(address, length))
        self.rooms.append(room)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        sent = self.response[:room]
        ctypes.memmove(room_address, sent, len(sent))
        message[:] = struct.pack("=QQQQ", address, length, room_address, len(sent))
        return 0


@pytest.fixture
def device(directory: Path) -> Path:
    """A file that can be opened; `Kernel` is its driver."""
    file = directory / "nsm"
    file.touch()
    return file


def test_a_device_gets_the_request_and_all_the_room_there_may_be(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = cbor2.dumps({"Attestation": {"document": bytes(9000)}})
    kernel = Kernel(response)
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    nsm = Nsm(str(device))
    assert nsm.attest(b"user", b"nonce", b"key") == bytes(9000)
    sent = {"user_data": b"user", "nonce": b"nonce", "public_key": b"key"}
    assert [cbor2.loads(each) for each in kernel.requests] == [{"Attestation": sent}]
    assert kernel.rooms == [MAX_RESPONSE_BYTES]
    assert not nsm.is_software


DRIVER_ERRORS: dict[int, tuple[type[Exception], str]] = {
    errno.ETIMEDOUT: (NsmTimedOut, "no answer in time"),
    errno.EIO: (NsmFailed, "Input/output error"),
    errno.ENODATA: (NsmFailed, "No data available"),
    errno.EMSGSIZE: (NsmFailed, "Message too long"),
}


@pytest.mark.parametrize("number", DRIVER_ERRORS, ids=errno.errorcode.get)
def test_an_error_of_the_driver_has_its_class(
    number: int, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", Kernel(error=number).ioctl)
    expected, text = DRIVER_ERRORS[number]
    with pytest.raises(expected, match=f"^{device}: {text}$"):
        Nsm(str(device)).random()


def test_no_module_is_an_error(directory: Path) -> None:
    missing = directory / "none"
    assert not has_nsm(str(missing))
    assert not Nsm(str(missing)).is_software
    with pytest.raises(NsmMissing, match=f"^{missing}: No such file or directory$"):
        Nsm(str(missing)).describe()
    with pytest.raises(NsmMissing, match="embedded null byte"):
        Nsm("/\0").describe()


def test_a_file_is_no_module(device: Path) -> None:
    assert has_nsm(str(device))
    with pytest.raises(NsmFailed, match=f"^{device}: Inappropriate ioctl for device$"):
        Nsm(str(device)).describe()


def test_a_directory_is_no_module(directory: Path) -> None:
    with pytest.raises(NsmMissing, match=f"^{directory}: Is a directory$"):
        Nsm(str(directory)).describe()


def test_a_request_that_is_too_long_is_not_sent(directory: Path) -> None:
    with pytest.raises(NsmRequestError, match="4097 bytes, over 4096"):
        Nsm(str(directory)).exchange(bytes(MAX_REQUEST_BYTES + 1))


def test_all_seven_requests_over_a_socket(directory: Path) -> None:
    with nsm_socket(directory / "nsm.sock") as path:
        nsm = Nsm(str(path))
        assert nsm.is_software
        assert nsm.location == str(path)
        described = nsm.describe()
        assert (described.module_id, described.max_pcrs) == (MODULE_ID, 32)
        assert described.locked_pcrs == tuple(range(16))
        before = nsm.describe_pcr(16)
        assert (before.value, before.is_locked) == (bytes(48), False)
        value = nsm.extend_pcr(16, b"abc")
        nsm.lock_pcr(16)
        after = nsm.describe_pcr(16)
        assert (after.value, after.is_locked) == (value, True)
        nsm.lock_pcrs(18)
        assert nsm.describe().locked_pcrs == tuple(range(18))
        assert len(nsm.random()) == 256
        assert nsm.random() != nsm.random()
        document = document_fields(nsm.attest(nonce=b"abc"))
        assert (document["nonce"], document["user_data"]) == (b"abc", None)
        assert document["pcrs"][0] == SOFTWARE_PCRS[0]
        assert document["pcrs"][16] == value
        with pytest.raises(NsmRefused, match="refused LockPCR: 'ReadOnlyIndex'"):
            nsm.lock_pcr(16)


def test_a_socket_that_nobody_serves_is_no_module(directory: Path) -> None:
    with nsm_socket(directory / "nsm.sock") as path:
        pass
    with pytest.raises(NsmMissing, match=f"^{path}: Connection refused$"):
        Nsm(str(path)).random()


def test_a_socket_of_another_kind_is_no_module(directory: Path) -> None:
    path = directory / "streams.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(NsmMissing, match="Protocol wrong type for socket"):
            Nsm(str(path)).random()


def test_a_module_that_closes_is_an_error(directory: Path) -> None:
    with (
        nsm_socket(directory / "nsm.sock", lambda _: b"") as path,
        pytest.raises(NsmFailed, match="closed the connection without an answer"),
    ):
        Nsm(str(path)).random()


def test_a_response_that_is_too_long_is_an_error(directory: Path) -> None:
    with (
        nsm_socket(directory / "nsm.sock", lambda _: bytes(MAX_RESPONSE_BYTES + 5)) as path,
        pytest.raises(NsmResponseError, match="over 12288"),
    ):
        Nsm(str(path)).random()


def test_a_module_that_does_not_answer_is_given_up(directory: Path) -> None:
    path = directory / "nsm.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(0)
        nsm = Nsm(str(path), seconds=0.05)
        with pytest.raises(NsmTimedOut, match=f"^{path}: no answer in time$"):
            nsm.random()
        # That connection is still in the backlog, which is full now.
        with pytest.raises(TimeoutError):
            nsm.random()


def test_where_the_module_is_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NSM_VARIABLE, raising=False)
    assert nsm_location() == NSM_DEVICE
    monkeypatch.setenv(NSM_VARIABLE, "")
    assert nsm_location() == NSM_DEVICE
    monkeypatch.setenv(NSM_VARIABLE, "/run/nsm.sock")
    assert nsm_location() == "/run/nsm.sock"
