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


def test_in_the_commands_network_only_those_of_the_network_are_set(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "net.core.somaxconn", "vm.swappiness")
    settings = {"net.core.somaxconn": "7", "vm.swappiness": "1"}
    assert apply_settings(settings, of_network_only=True, folder=folder) == []
    assert (folder / "net/core/somaxconn").read_text() == "7"
    assert (folder / "vm/swappiness").read_text() == ""


def test_which_settings_a_network_namespace_has() -> None:
    assert is_of_network("net.core.somaxconn")
    assert not is_of_network("vm.swappiness")
