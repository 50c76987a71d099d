import re
from pathlib import Path

import pytest

from vsockproxy.config.capabilities import CAPABILITIES, capability_mask, capability_names
from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import EnclaveConfig

HEADER = Path("/usr/include/linux/capability.h")


@pytest.mark.parametrize(
    ("name", "number"),
    [("CHOWN", 0), ("NET_BIND_SERVICE", 10), ("SYS_ADMIN", 21), ("CHECKPOINT_RESTORE", 40)],
)
def test_a_capability_has_the_kernels_number(name: str, number: int) -> None:
    assert CAPABILITIES.index(name) == number
    assert capability_mask([name]) == 1 << number


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are missing: linux-libc-dev")
def test_the_table_is_the_kernels() -> None:
    defined = re.findall(r"^#define CAP_([A-Z_]+)\s+([0-9]+)$", HEADER.read_text(), re.MULTILINE)
    theirs = {name: int(number) for name, number in defined}
    ours = {name: number for number, name in enumerate(CAPABILITIES)}
    common = theirs.keys() & ours.keys()  # the headers may be older or newer
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}
    assert len(common) >= 38


def test_a_set_of_capabilities_and_its_names() -> None:
    assert capability_mask([]) == 0
    assert capability_mask(["SYSLOG", "KILL", "KILL"]) == 1 << 34 | 1 << 5
    assert capability_names(1 << 34 | 1 << 5 | 1 << 63) == ["KILL", "SYSLOG"]
    assert capability_names(capability_mask(CAPABILITIES)) == list(CAPABILITIES)


def file_with(command: str) -> bytes:
    return f"parent: vsock://3:5000\ncommand: {command}\n".encode()


def test_capabilities_of_a_file() -> None:
    config = parse(file_with("{capabilities: [NET_BIND_SERVICE, SYS_NICE]}"), "f").config
    assert isinstance(config, EnclaveConfig)
    assert config.command.capabilities == ["NET_BIND_SERVICE", "SYS_NICE"]


WRONG = {
    "with the prefix": ("CAP_NET_ADMIN", "'CAP_NET_ADMIN' is not in normal form: write NET_ADMIN"),
    "in small letters": ("kill", "'kill' is not in normal form: write KILL"),
    "nearly": ("NET_BIND_SERVICES", "'NET_BIND_SERVICES' is no capability: write NET_BIND_SERVICE"),
    "nothing of the kind": (
        "everything",
        "'everything' is no capability: write one of capabilities(7), without CAP_",
    ),
    "a number": ("21", "21 is no text: write the name of a capability, as NET_BIND_SERVICE"),
}


@pytest.mark.parametrize(("written", "line"), WRONG.values(), ids=WRONG)
def test_a_name_that_is_none_is_an_error_with_its_mend(written: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(file_with(f"{{capabilities: [{written}]}}"), "f")
    assert str(caught.value) == f"f:2: command.capabilities[0]: {line}"


USERS: dict[str, tuple[str, str | int]] = {
    "a name": ("app", "app"),
    "a number": ("1000", 1000),
    "a number in quotes": ("'1000'", "1000"),
    "root": ("0", 0),
}


@pytest.mark.parametrize(("written", "user"), USERS.values(), ids=USERS)
def test_the_user_of_a_file(written: str, user: str | int) -> None:
    config = parse(file_with(f"{{user: {written}}}"), "f").config
    assert isinstance(config, EnclaveConfig)
    assert config.command.user == user


@pytest.mark.parametrize("written", ["a b", "-1", "4294967295", "true", "[app]", "1.5"])
def test_what_is_no_user_is_an_error(written: str) -> None:
    with pytest.raises(ConfigErrors, match=r"f:2: command\.user: .*: write a name of up to 64"):
        parse(file_with(f"{{user: {written}}}"), "f")
