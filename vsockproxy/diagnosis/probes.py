"""Looks at this machine, and changes nothing of it.

What needs namespaces is tried in a child process, and is gone with it. Nothing is dialled on vsock
but this machine itself (CID 1), and that only where the kernel has its loopback.
"""

import ctypes
import errno
import fcntl
import os
import platform
import resource
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vsockproxy.diagnosis.observations import ModuleTest, Observations, StreamTest
from vsockproxy.errors import VsockproxyError
from vsockproxy.nsm_device import Nsm, has_nsm, nsm_location
from vsockproxy.nsm_locations import NSM_DEVICE

__all__ = ("look", "look_at_module", "try_small_writes")

WANTED_BUFFER_BYTES: Final = 8 * 1024 * 1024

LOOPBACK_CID: Final = 1

WRITES: Final = 2000
WRITE_BYTES: Final = 200
TEST_SECONDS: Final = 10.0

_MODULES: Final = (
    "vsock",
    "vsock_loopback",
    "vmw_vsock_virtio_transport",
    "vmw_vsock_vmci_transport",
    "hv_sock",
    "vhost_vsock",
)

# include/uapi/linux/sched.h
_NEW_USER: Final = 0x1000_0000
_NEW_NETWORK: Final = 0x4000_0000

# include/uapi/linux/sockios.h, if.h
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 1
_INTERFACE_REQUEST: Final = struct.Struct("16sH22x")

# include/uapi/linux/netlink.h, rtnetlink.h, if_link.h
_RTM_NEWLINK: Final = 16
_REQUEST_FLAGS: Final = 0x1 | 0x4 | 0x200 | 0x400  # REQUEST, ACK, EXCL, CREATE
_IFLA_LINKINFO: Final = 18
_IFLA_INFO_KIND: Final = 1
_MESSAGE_HEADER: Final = struct.Struct("=LHHLL")
_ATTRIBUTE_HEADER: Final = struct.Struct("=HH")
_INTERFACE: Final = struct.Struct("=BxHiII")
_ANSWER_BYTES: Final = 4096

# unix(7) and vm_sockets.h, which the socket module lacks on some builds.
_AF_VSOCK: Final = 40
_SO_VM_SOCKETS_BUFFER_SIZE: Final = 0
_SO_VM_SOCKETS_BUFFER_MAX_SIZE: Final = 2


def look() -> Observations:
    """Look at everything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    vsock_error, buffer_bytes = _look_at_vsock()
    user_namespace_error = _why_not(_NEW_USER, lambda: 0)
    namespaces = _NEW_NETWORK if os.geteuid() == 0 else _NEW_USER | _NEW_NETWORK
    can_try = os.geteuid() == 0 or not user_namespace_error
    uname = os.uname()
    return Observations(
        kernel=uname.release,
        architecture=uname.machine,
        python=platform.python_version(),
        python_has_vsock=hasattr(socket, "AF_VSOCK"),
        vsock_error=vsock_error,
        vsock_buffer_bytes=buffer_bytes,
        vsock_modules=frozenset(name for name in _MODULES if Path("/sys/module", name).exists()),
        g2h_fallback=_read("/proc/sys/net/vsock/g2h_fallback"),
        is_enclave=has_nsm(),
        module=look_at_module(nsm_location()),
        is_parent=Path("/dev/nitro_enclaves").exists(),
        random_source=_read("/sys/class/misc/hw_random/rng_current"),
        clock_source=_read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        loopback_is_up=_loopback_is_up(),
        user_namespace_error=user_namespace_error,
        veth_error=_why_not(namespaces, _make_veth) if can_try else None,
        has_seccomp=Path("/proc/sys/kernel/seccomp/actions_avail").exists(),
        soft_descriptors=soft,
        hard_descriptors=hard,
        stream_test=try_small_writes(),
    )


def look_at_module(location: str) -> ModuleTest | None:
    """Ask the module what it is; None where nobody says that there is one.

    It is asked in a thread, since a device may take two minutes to say that nobody answers.
    """
    if location == NSM_DEVICE and not has_nsm(location):
        return None
    nsm = Nsm(location, seconds=TEST_SECONDS)
    found: list[ModuleTest] = []

    def ask() -> None:
        try:
            said = nsm.describe()
        except VsockproxyError as error:
            found.append(ModuleTest(location, nsm.is_software, error=str(error)))
            return
        version = ".".join(map(str, said.version))
        locked = f"{len(said.locked_pcrs)} of {said.max_pcrs} registers locked"
        text = f"version {version}, {said.module_id}, {locked}"
        found.append(ModuleTest(location, nsm.is_software, text))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(TEST_SECONDS)
    silent = ModuleTest(location, nsm.is_software, error=f"{location}: no answer in time")
    return found[0] if found else silent


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _look_at_vsock() -> tuple[str, int | None]:
    """Why a vsock socket cannot be made, and how large its buffer can be."""
    try:
        with socket.socket(_AF_VSOCK, socket.SOCK_STREAM) as sock:
            try:
                for option in (_SO_VM_SOCKETS_BUFFER_MAX_SIZE, _SO_VM_SOCKETS_BUFFER_SIZE):
                    sock.setsockopt(_AF_VSOCK, option, WANTED_BUFFER_BYTES)
                return "", sock.getsockopt(_AF_VSOCK, _SO_VM_SOCKETS_BUFFER_SIZE)
            except OSError:
                return "", None
    except OSError as error:
        return error.strerror or str(error), None


def _loopback_is_up() -> bool | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = _INTERFACE_REQUEST.pack(b"lo", 0)
        try:
            answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
        except OSError:
            return None
    return bool(_INTERFACE_REQUEST.unpack(answer)[1] & _IFF_UP)


def _why_not(namespaces: int, act: Callable[[], int]) -> str:
    """Try something in namespaces of its own, in a child; why it failed, or nothing.

    Args:
        namespaces: CLONE_NEW* of the child's own.
        act: returns an errno, or 0.
    """
    child = os.fork()
    if child == 0:
        number = errno.EIO
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            number = act() if libc.unshare(namespaces) == 0 else ctypes.get_errno()
        finally:
            os._exit(number)
    _, status = os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(status)
    return os.strerror(abs(number)) if number else ""


def _make_veth() -> int:
    """Make a pair of network devices in this network namespace; the kernel's errno, or 0."""
    kind = _attribute(_IFLA_LINKINFO, _attribute(_IFLA_INFO_KIND, b"veth"))
    body = _INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + kind
    header = _MESSAGE_HEADER.pack(
        _MESSAGE_HEADER.size + len(body), _RTM_NEWLINK, _REQUEST_FLAGS, 1, 0
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(TEST_SECONDS)
        netlink.send(header + body)
        answer = netlink.recv(_ANSWER_BYTES)
    (number,) = struct.unpack_from("=i", answer, _MESSAGE_HEADER.size)  # struct nlmsgerr
    return abs(int(number))


def _attribute(kind: int, content: bytes) -> bytes:
    """A netlink attribute, padded to words."""
    padding = bytes(-len(content) % 4)
    return _ATTRIBUTE_HEADER.pack(_ATTRIBUTE_HEADER.size + len(content), kind) + content + padding


def try_small_writes() -> StreamTest:
    """Write many small pieces that nobody reads, until the last is made or the kernel is full."""
    if hasattr(socket, "AF_VSOCK") and Path("/sys/module/vsock_loopback").exists():
        carrier, connect = "vsock loopback", _connect_vsock
    else:
        carrier, connect = "a unix socket", socket.socketpair
    try:
        writer, reader = connect()
    except OSError as error:
        return StreamTest(carrier, error=error.strerror or str(error))
    with writer, reader:
        return _write_and_read(carrier, writer, reader)


def _connect_vsock() -> tuple[socket.socket, socket.socket]:
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen(1)
        listener.settimeout(TEST_SECONDS)
        writer = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            writer.settimeout(TEST_SECONDS)
            writer.connect((LOOPBACK_CID, listener.getsockname()[1]))
            reader, _ = listener.accept()
        except BaseException:
            writer.close()
            raise
        return writer, reader


def _write_and_read(carrier: str, writer: socket.socket, reader: socket.socket) -> StreamTest:
    written = bytearray()
    writer.setblocking(False)
    try:
        for number in range(WRITES):
            piece = number.to_bytes(4, "big") * (WRITE_BYTES // 4)
            written += piece[: writer.send(piece)]
    except BlockingIOError:
        pass  # the kernel has taken what it can
    except OSError as error:
        return StreamTest(carrier, len(written), error=error.strerror or str(error))
    writer.shutdown(socket.SHUT_WR)
    reader.settimeout(TEST_SECONDS)
    read = bytearray()
    try:
        while data := reader.recv(len(written) + 1):
            read += data
    except OSError:
        pass  # what has not come by now is lost
    return StreamTest(carrier, len(written), len(read), is_intact=read == written)
