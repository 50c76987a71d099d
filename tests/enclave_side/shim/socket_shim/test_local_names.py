"""Which names are this machine's: by its hosts file, and by RFC 6761."""

from pathlib import Path

import pytest

from enclave_side.shim.socket_shim.local_names import HostsFile, LocalNames

HOSTS = """
# a comment
127.0.0.1   localhost builder.test   # and another
127.0.1.1   Container
::1         ip6-localhost ip6-loopback
172.17.0.2  container-7 container-7.docker.test.
172.17.0.3  database.test
not-an-address  nonsense.test
127.0.0.9
fe80::1%lo  zone.test
"""

NAMES = {
    "localhost": "localhost",
    "LOCALHOST.": "LOCALHOST.",
    "a.localhost": "localhost",
    "b.a.localhost.": "localhost",
    "notlocalhost": None,
    "builder.test": "builder.test",
    "container": "container",
    "ip6-loopback": "ip6-loopback",
    "container-7": "container-7",
    "container-7.docker.test": "container-7.docker.test",
    "database.test": None,
    "nonsense.test": None,
    "zone.test": None,
    "": None,
}
"""Each name, and what the C library is asked for in its place."""


@pytest.mark.parametrize("name", NAMES)
def test_a_name(name: str) -> None:
    assert LocalNames.parse(HOSTS, "Container-7").local_name(name) == NAMES[name]


def test_addresses_are_those_of_the_lines_that_count() -> None:
    local = LocalNames.parse(HOSTS, "container-7")
    assert local.addresses == {"127.0.0.1", "127.0.1.1", "::1", "172.17.0.2"}


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe 127.0.0.1\n127.0.0.1 \xff\n"])
def test_a_file_that_says_nothing(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "hosts"
    if content is not None:
        path.write_bytes(content)
    local = HostsFile(str(path)).local_names()
    assert local.local_name("localhost") == "localhost"
    assert local.local_name("other.test") is None


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    hosts = HostsFile(str(path))
    for content, names in (
        ("127.0.0.1 one.test", {"one.test"}),
        ("127.0.0.1 one.test two.test", {"one.test", "two.test"}),
        (None, set()),
        ("127.0.0.1 one.test", {"one.test"}),
    ):
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        first, second = hosts.local_names(), hosts.local_names()
        assert first.names == names
        assert second == first
