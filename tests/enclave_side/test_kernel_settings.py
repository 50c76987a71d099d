from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enclave_side.kernel_settings import (
    FOR_MANY_CONNECTIONS,
    apply_settings,
    is_of_network,
    wanted_settings,
)


def make_folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        path = tmp_path.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path


def test_what_the_file_says_takes_the_place_of_ours() -> None:
    assert wanted_settings({}) == FOR_MANY_CONNECTIONS
    wanted = wanted_settings({"net.core.somaxconn": 9, "vm.swappiness": "1"})
    assert wanted["net.core.somaxconn"] == "9"
    assert wanted["vm.swappiness"] == "1"
    assert wanted["net.ipv4.tcp_tw_reuse"] == "1"


def test_they_are_written_and_what_cannot_be_is_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "net.core.somaxconn")
    settings = {"net.core.somaxconn": "7", "net.ipv4.tcp_tw_reuse": "1"}
    assert apply_settings(settings, folder=folder) == [
        "machine.sysctls: net.ipv4.tcp_tw_reuse is not 1: No such file or directory"
    ]
    assert (folder / "net/core/somaxconn").read_text() == "7"


def test_those_of_the_network_are_set_for_the_command_too(tmp_path: Path) -> None:
    ours = make_folder(tmp_path / "ours", "net.core.somaxconn", "vm.swappiness")
    written: list[str] = []

    @contextmanager
    def inside() -> Iterator[None]:
        # The same path means another file there.
        (ours / "net/core/somaxconn").rename(tmp_path / "kept")
        (ours / "net/core/somaxconn").write_text("")
        (ours / "vm/swappiness").write_text("")
        yield
        written.append((ours / "net/core/somaxconn").read_text())
        written.append((ours / "vm/swappiness").read_text())

    settings = {"net.core.somaxconn": "7", "vm.swappiness": "1", "net.core.none": "2"}
    lines = apply_settings(settings, inside(), folder=ours)
    assert written == ["7", ""]
    assert (tmp_path / "kept").read_text() == "7"
    assert lines == ["machine.sysctls: net.core.none is not 2: No such file or directory"]


def test_which_settings_a_network_namespace_has() -> None:
    assert is_of_network("net.core.somaxconn")
    assert not is_of_network("vm.swappiness")
