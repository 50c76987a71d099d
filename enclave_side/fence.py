"""What the user's command may not do: worked out from the file, carried out by `launcher`.

The allowlist is kept by our worker, and it must not be possible to walk around it. A network
namespace does not hold AF_VSOCK, so the command runs under a seccomp filter, without capabilities
and without a way to get any, and with another user if the file names one. The worker, on its part,
refuses to be traced (`vsockproxy.processes.forbid_tracing`).
"""

import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from enclave_side.seccomp_filter import ARCHITECTURES, assemble, filter_instructions
from vsockproxy.config.capabilities import capability_mask, capability_names
from vsockproxy.config.model import Command
from vsockproxy.errors import VsockproxyError

__all__ = ("Account", "Fence", "FenceError", "Powers", "find_account", "plan_fence")

ROOT: Final = 0

RUNS_AS_ROOT: Final = (
    "command.user is not set: the command runs as root, without capabilities, but may change files "
    "and settings of root, with which the allowlist can be walked around"
)

_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
_64_BITS: Final = 1 << 32
"""What `sys.maxsize` exceeds in a 64-bit program."""


class FenceError(VsockproxyError):
    """The fence that the file asks for cannot be had here; says what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, as its passwd and group files have it."""

    name: str
    user: int
    group: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class Powers:
    """What this process may do to its children; from /proc/self.

    Args:
        user: its effective user.
        capabilities: those it may pass on.
        users: the user numbers that exist in its user namespace.
        groups: the group numbers.
    """

    user: int
    capabilities: int
    users: Sequence[range]
    groups: Sequence[range]

    @classmethod
    def read(cls) -> Self:
        """Those of this process.

        Raises:
            FenceError: there is no /proc.
        """
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            return cls(
                user=os.geteuid(),
                capabilities=int(status["CapPrm"], 16) & int(status["CapBnd"], 16),
                users=_read_map("uid_map"),
                groups=_read_map("gid_map"),
            )
        except OSError as error:
            raise FenceError(f"{error.filename}: {error.strerror}: mount /proc") from error

    def has_account(self, account: Account) -> bool:
        """Whether a child can become that user."""
        return _is_in(account.user, self.users) and _is_in(account.group, self.groups)


@dataclass(frozen=True, slots=True)
class Fence:
    """How the command is to be started.

    Args:
        capabilities: what it keeps; bit N is capability N.
        seccomp_program: what the kernel asks at each of its system calls; empty for none.
        demands_filter: whether it must not run where the kernel has no such filters.
        account: the user it becomes; None for this process's own.
        left_out: what of the file cannot be done here, a line for each.
    """

    capabilities: int
    seccomp_program: bytes
    demands_filter: bool
    account: Account | None = None
    left_out: list[str] = field(default_factory=list)

    def launcher(self, namespace: int | None = None, directory: str | None = None) -> list[str]:
        """The words that go before the descriptor of a report and the command.

        Args:
            namespace: the descriptor of a network namespace for the command, which has to be passed
                to the launcher; None for this process's own.
            directory: where the command starts; None for this process's own.
        """
        instructions = [f"capabilities={self.capabilities:x}"]
        if directory is not None:
            instructions.append(f"directory={os.fsencode(directory).hex()}")
        if namespace is not None:
            instructions.append(f"namespace={namespace}")
        if self.account is not None:
            groups = ",".join(map(str, self.account.groups))
            instructions.append(f"user={self.account.user}:{self.account.group}:{groups}")
        if self.seccomp_program:
            name = "filter" if self.demands_filter else "optional_filter"
            instructions.append(f"{name}={self.seccomp_program.hex()}")
        # Isolated and without site: nothing that the environment or the working directory has is
        # imported. UTF-8 mode takes every byte of an argument, whatever the locale, and gives it
        # back unchanged.
        python = [sys.executable, "-I", "-S", "-X", "utf8"]
        return [*python, str(_LAUNCHER), " ".join(instructions)]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that tell the command who it is; none if it is who we are."""
        if self.account is None:
            return {}
        name = self.account.name
        return {"HOME": self.account.home, "USER": name, "LOGNAME": name}


def plan_fence(
    settings: Command, powers: Powers | None = None, *, machine: str | None = None
) -> Fence:
    """Work out the fence.

    Args:
        settings: the section of the configuration file.
        powers: those of this process, if None.
        machine: what uname calls this one, if None.

    Raises:
        FenceError: no such user, no filter for this machine, or no /proc.
    """
    powers = Powers.read() if powers is None else powers
    left_out: list[str] = []
    wanted = capability_mask(settings.capabilities)
    if missing := capability_names(wanted & ~powers.capabilities):
        left_out.append(
            f"command.capabilities: {', '.join(missing)} not granted, since this process does not "
            "have them itself"
        )
    denies_vsock = settings.vsock == "deny"
    return Fence(
        capabilities=wanted & powers.capabilities,
        seccomp_program=_seccomp_program(
            os.uname().machine if machine is None else machine, denies_vsock=denies_vsock
        ),
        demands_filter=denies_vsock,
        account=_choose_account(settings, powers, left_out),
        left_out=left_out,
    )


def find_account(user: str | int) -> Account:
    """The user of that name or number.

    Raises:
        FenceError: there is none.
    """
    try:
        found = _look_up(user)
    except (KeyError, OverflowError):
        raise FenceError(
            f"command.user: there is no user {user} in this machine's passwd file: add one to the "
            f"image (useradd), or write another"
        ) from None
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(found.pw_name, found.pw_uid, found.pw_gid, tuple(groups), found.pw_dir)


def _look_up(user: str | int) -> pwd.struct_passwd:
    if isinstance(user, int):
        return pwd.getpwuid(user)
    try:
        return pwd.getpwnam(user)
    except KeyError:
        if user.isdigit():  # as everywhere that takes both, a name goes first
            return pwd.getpwuid(int(user))
        raise


def _choose_account(settings: Command, powers: Powers, left_out: list[str]) -> Account | None:
    """The user that the command becomes; None if it stays who we are."""
    is_alone = sum(map(len, powers.users)) <= 1
    if settings.user is None:
        if powers.user == ROOT and not is_alone and settings.vsock == "deny":
            left_out.append(RUNS_AS_ROOT)
        return None
    account = find_account(settings.user)
    if powers.user != ROOT:
        if account.user == powers.user:
            return None
        why = "since only root can change the user"
    elif not powers.has_account(account):
        why = "since this user namespace has no such user (a sandbox has one user only)"
    elif is_alone:
        return None  # root, in a sandbox
    else:
        return account
    left_out.append(f"command.user: {settings.user} is left out, {why}")
    return None


def _seccomp_program(machine: str, *, denies_vsock: bool) -> bytes:
    architecture = ARCHITECTURES.get(machine) if sys.maxsize > _64_BITS else None
    if architecture is not None:
        return assemble(filter_instructions(architecture, denies_vsock=denies_vsock))
    if not denies_vsock:
        return b""
    raise FenceError(
        f"command.vsock: no seccomp filter is known for a {machine} machine with this Python, only "
        f"for 64-bit {' and '.join(ARCHITECTURES)}: write allow"
    )


def _read_map(name: str) -> list[range]:
    """A map of numbers inside a user namespace to those outside (user_namespaces(7))."""
    lines = Path("/proc/self", name).read_text().splitlines()
    starts_and_lengths = [(int(line.split()[0]), int(line.split()[2])) for line in lines]
    return [range(start, start + length) for start, length in starts_and_lengths]


def _is_in(number: int, ranges: Sequence[range]) -> bool:
    return any(number in each for each in ranges)
