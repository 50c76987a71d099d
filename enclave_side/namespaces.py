"""The system calls that make a machine of one's own, which Python 3.11 does not have.

Only for a process with a single thread: a namespace belongs to the thread that asks for it.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from enum import IntFlag
from pathlib import Path
from typing import Final, Self

from vsockproxy.errors import VsockproxyError

__all__ = (
    "MountFlag",
    "Namespace",
    "NamespaceError",
    "add_loopback_address",
    "bring_up_loopback",
    "enter_namespace",
    "map_to_root",
    "mount",
    "permit_low_ports",
    "set_host_name",
    "unshare",
    "why_user_namespaces_fail",
)


class Namespace(IntFlag):
    """Kinds of namespaces (CLONE_NEW* of include/uapi/linux/sched.h)."""

    MOUNT = 0x0002_0000
    UTS = 0x0400_0000
    IPC = 0x0800_0000
    USER = 0x1000_0000
    PID = 0x2000_0000
    NETWORK = 0x4000_0000


class MountFlag(IntFlag):
    """Flags of mount(2) (include/uapi/linux/mount.h)."""

    NONE = 0
    NO_SET_USER_ID = 2
    NO_DEVICES = 4
    NO_EXECUTION = 8
    BIND = 4096
    RECURSIVE = 16384
    PRIVATE = 1 << 18


class NamespaceError(VsockproxyError):
    """The kernel refused a step of the set-up; `number` is its errno."""

    def __init__(self, step: str, number: int, cause: str = "") -> None:
        super().__init__(f"{step}: {os.strerror(number)}{': ' if cause else ''}{cause}")
        self.step = step
        self.number = number

    def because(self, cause: str) -> Self:
        """The same error with its cause and mend."""
        return type(self)(self.step, self.number, cause)


def unshare(namespaces: Namespace) -> None:
    """Give this process namespaces of its own; a PID namespace only to its future children.

    Raises:
        NamespaceError: not permitted, too many, or unknown to this kernel.
    """
    if _libc().unshare(int(namespaces)) != 0:
        names = " + ".join(each.name.lower() for each in Namespace if each in namespaces)  # type: ignore[union-attr]  # members of a flag have names
        raise NamespaceError(f"new {names} namespaces", ctypes.get_errno())


def enter_namespace(descriptor: int, kind: Namespace) -> None:
    """Move this thread into the namespace that `descriptor` (a file of /proc/PID/ns) stands for.

    Raises:
        NamespaceError: not permitted, or the descriptor is none of that kind.
    """
    if _libc().setns(descriptor, int(kind)) != 0:
        name = (kind.name or "").lower()
        raise NamespaceError(f"entering a {name} namespace", ctypes.get_errno())


def map_to_root(user: int, group: int) -> None:
    """In a new user namespace, make root of `user` and `group`, the caller's own ids outside.

    Raises:
        NamespaceError: not permitted.
    """
    # Without "deny", an unprivileged process may not map a group (user_namespaces(7)).
    contents = {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}
    for name, content in contents.items():
        try:
            Path("/proc/self", name).write_text(content)
        except OSError as error:
            raise NamespaceError(f"writing /proc/self/{name}", error.errno or 0) from error


def mount(
    source: str,
    target: str,
    file_system: str = "",
    flags: MountFlag = MountFlag.NONE,
    data: str = "",
) -> None:
    """Mount a file system, or a place once more; the arguments are the system call's.

    Raises:
        NamespaceError: the kernel refused.
    """
    texts = [os.fsencode(text) for text in (source, target, file_system)]
    if _libc().mount(*texts, ctypes.c_ulong(int(flags)), os.fsencode(data)) != 0:
        raise NamespaceError(f"mounting {source} on {target}", ctypes.get_errno())


def set_host_name(name: str) -> None:
    """Name this machine; meant for a UTS namespace of its own.

    Raises:
        NamespaceError: not permitted.
    """
    try:
        socket.sethostname(name)
    except OSError as error:
        raise NamespaceError("setting the host name", error.errno or 0) from error


# include/uapi/linux/sockios.h, if.h: struct ifreq is a name and, here, flags; 40 bytes in all.
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_INTERFACE_REQUEST: Final = struct.Struct("16sH22x")


def bring_up_loopback() -> None:
    """Bring the interface lo up, unless it is; the kernel then gives it 127.0.0.1 and ::1.

    Raises:
        NamespaceError: not permitted (that takes CAP_NET_ADMIN), or there is no lo.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            found = fcntl.ioctl(control, _SIOCGIFFLAGS, _INTERFACE_REQUEST.pack(b"lo", 0))
            if _INTERFACE_REQUEST.unpack(found)[1] & _IFF_UP:
                return  # as in a container, which may have it up and no right to touch it
            fcntl.ioctl(control, _SIOCSIFFLAGS, _INTERFACE_REQUEST.pack(b"lo", _IFF_UP))
        except OSError as error:
            raise NamespaceError("bringing up the interface lo", error.errno or 0) from error


# struct ifreq with a struct sockaddr_in: family, port, address; 40 bytes in all.
_SIOCSIFADDR: Final = 0x8916
_SIOCSIFNETMASK: Final = 0x891C
_ADDRESS_REQUEST: Final = struct.Struct("16sHH4s16x")
_ONE_ADDRESS: Final = "255.255.255.255"


def add_loopback_address(address: str) -> None:
    """Give the interface lo one more IPv4 address (netdevice(7)).

    Args:
        address: it gets a label of its own, so that what lo has stays.

    Raises:
        NamespaceError: not permitted: that takes CAP_NET_ADMIN.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, _ONE_ADDRESS)):
                packed = _ADDRESS_REQUEST.pack(
                    b"lo:vsockproxy", socket.AF_INET, 0, socket.inet_aton(value)
                )
                fcntl.ioctl(control, request, packed)
        except OSError as error:
            raise NamespaceError(f"giving lo the address {address}", error.errno or 0) from error


def permit_low_ports() -> None:
    """Let everybody in this network namespace listen on ports below 1024, capable or not.

    Raises:
        NamespaceError: not permitted, or /proc/sys is read-only.
    """
    path = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")  # and for IPv6 just as well
    try:
        path.write_text("0")
    except OSError as error:
        raise NamespaceError(f"writing {path}", error.errno or 0) from error


def why_user_namespaces_fail(number: int) -> str:
    """Say what stands against a user namespace, and how to permit it; `number` is the errno."""
    if _setting("user/max_user_namespaces") == "0":
        return "user namespaces are switched off: sysctl -w user.max_user_namespaces=15000"
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "only root may make user namespaces: sysctl -w kernel.unprivileged_userns_clone=1"
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces: "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if number == errno.ENOSPC:
        return "there are as many as user.max_user_namespaces allows: raise it with sysctl -w"
    if number in (errno.EINVAL, errno.ENOSYS):
        return "this kernel has no user namespaces (CONFIG_USER_NS): run as root"
    return (
        "something forbids them, in a container its seccomp profile: run the container with "
        "--security-opt seccomp=unconfined, or with --privileged"
    )


def _setting(name: str) -> str:
    """A setting of the kernel; empty if this kernel does not have it."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
