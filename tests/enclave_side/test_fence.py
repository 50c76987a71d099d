import os
import pwd
import sys
from pathlib import Path

import pytest

from enclave_side.fence import (
    RUNS_AS_ROOT,
    Account,
    Fence,
    FenceError,
    Powers,
    find_account,
    plan_fence,
)
from vsockproxy.config.capabilities import CAPABILITIES, capability_mask
from vsockproxy.config.model import Command

EVERY_NUMBER = (range(2**32 - 1),)
ALL = capability_mask(CAPABILITIES)
NOBODY = pwd.getpwnam("nobody")

ROOT = Powers(0, ALL, EVERY_NUMBER, EVERY_NUMBER)
SANDBOX = Powers(0, ALL, (range(1),), (range(1),))
ROOTLESS_CONTAINER = Powers(0, ALL, (range(1), range(1, 65_537)), (range(65_537),))
ORDINARY = Powers(1000, 0, EVERY_NUMBER, EVERY_NUMBER)
THEMSELVES = Powers(NOBODY.pw_uid, 0, EVERY_NUMBER, EVERY_NUMBER)

NOT_ROOT = "command.user: nobody is left out, since only root can change the user"
ONE_USER = "command.user: nobody is left out, since this user namespace has no such user"

USERS: dict[str, tuple[Powers, str | int | None, bool, str | None]] = {
    "root, and a user": (ROOT, "nobody", True, None),
    "a user by number": (ROOT, NOBODY.pw_uid, True, None),
    "a user by a number in quotes": (ROOT, str(NOBODY.pw_uid), True, None),
    "root in a container's user namespace": (ROOTLESS_CONTAINER, "nobody", True, None),
    "root, and no user": (ROOT, None, False, RUNS_AS_ROOT),
    "root, who is asked for": (ROOT, "root", True, None),
    "a sandbox, and no user": (SANDBOX, None, False, None),
    "a sandbox, and a user": (SANDBOX, "nobody", False, ONE_USER),
    "a sandbox, and root": (SANDBOX, "root", False, None),
    "somebody, and no user": (ORDINARY, None, False, None),
    "somebody, and a user": (ORDINARY, "nobody", False, NOT_ROOT),
    "somebody, and the same user": (THEMSELVES, "nobody", False, None),
}


@pytest.mark.parametrize(("powers", "user", "changes", "left_out"), USERS.values(), ids=USERS)
def test_the_user_that_the_command_becomes(
    powers: Powers, user: str | int | None, changes: bool, left_out: str | None
) -> None:
    fence = plan_fence(Command(user=user), powers)
    assert (fence.account is not None) == changes
    assert len(fence.left_out) == (left_out is not None)
    assert all(line.startswith(left_out or "") for line in fence.left_out)


def test_who_allows_vsock_is_not_warned_of_ways_around() -> None:
    assert plan_fence(Command(vsock="allow"), ROOT).left_out == []


@pytest.mark.parametrize("user", ["no-such-user", "99999999999999999999", 4_000_000_001, "12.5"])
def test_a_user_who_is_missing_is_an_error_that_names_him(user: str | int) -> None:
    with pytest.raises(FenceError, match=rf"there is no user {user} in this machine's passwd file"):
        plan_fence(Command(user=user), ROOT)


def test_an_account_has_all_its_groups_and_its_home() -> None:
    account = find_account("nobody")
    assert (account.name, account.user, account.group) == ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    assert account.group in account.groups
    assert account.home == NOBODY.pw_dir


CAPABILITY_SETS: dict[str, tuple[list[str], list[str], list[str], str | None]] = {
    "none by default": ([], list(CAPABILITIES), [], None),
    "those that are listed": (["NET_RAW", "KILL"], list(CAPABILITIES), ["KILL", "NET_RAW"], None),
    "one that we lack": (
        ["NET_ADMIN", "KILL"],
        ["KILL"],
        ["KILL"],
        "command.capabilities: NET_ADMIN not granted, since this process does not have them itself",
    ),
}


@pytest.mark.parametrize(
    ("wanted", "ours", "kept", "left_out"), CAPABILITY_SETS.values(), ids=CAPABILITY_SETS
)
def test_the_capabilities_that_the_command_keeps(
    wanted: list[str], ours: list[str], kept: list[str], left_out: str | None
) -> None:
    powers = Powers(0, capability_mask(ours), (range(1),), (range(1),))
    fence = plan_fence(Command(capabilities=wanted), powers)
    assert fence.capabilities == capability_mask(kept)
    assert fence.left_out == ([] if left_out is None else [left_out])


def test_a_machine_that_no_filter_is_known_for() -> None:
    with pytest.raises(FenceError, match=r"command\.vsock: .* riscv64 .*: write allow"):
        plan_fence(Command(), ROOT, machine="riscv64")
    assert plan_fence(Command(vsock="allow"), ROOT, machine="riscv64").seccomp_program == b""


def test_the_launchers_words() -> None:
    account = Account("app", 1000, 100, (100, 27), "/home")
    fence = Fence(0x400, b"\x01\xff", demands_filter=True, account=account)
    *python, launcher, instructions = fence.launcher(namespace=7, directory="/a")
    assert python == [sys.executable, "-I", "-S", "-X", "utf8"]
    assert Path(launcher).is_file()
    assert set(instructions.split()) == {
        "namespace=7",
        "directory=2f61",
        "user=1000:100:100,27",
        "capabilities=400",
        "filter=01ff",
    }
    assert fence.environment == {"HOME": "/home", "USER": "app", "LOGNAME": "app"}


def test_the_launchers_words_where_little_is_asked_for() -> None:
    fence = Fence(0, b"\x01", demands_filter=False)
    assert set(fence.launcher()[-1].split()) == {"capabilities=0", "optional_filter=01"}
    assert fence.environment == {}
    assert Fence(0, b"", demands_filter=False).launcher()[-1] == "capabilities=0"


def test_our_own_powers() -> None:
    powers = Powers.read()
    assert powers.user == os.geteuid()
    assert any(os.geteuid() in each for each in powers.users)
    assert any(os.getegid() in each for each in powers.groups)
    assert powers.capabilities & ~((1 << 64) - 1) == 0
