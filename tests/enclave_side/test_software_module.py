"""The root of a software module: in a file, or of one start's own."""

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from enclave_side.software_module import SoftwareModuleError, make_memory
from enclave_side.trust import TrustMissing
from tests.support.nsm_server import module_keys, module_root
from vsockproxy.attestation.software_memory import MAX_MEMORY_BYTES, SoftwareMemory
from vsockproxy.attestation.software_pki import read_root, write_root
from vsockproxy.passed_memory import read_memory


def root_in_memory(file: Path | None) -> bytes:
    """The root that the services process would have, in DER."""
    descriptor = make_memory(None if file is None else str(file))
    try:
        memory = SoftwareMemory.decode(read_memory(descriptor, MAX_MEMORY_BYTES))
    finally:
        os.close(descriptor)
    assert memory.registers == {}
    return read_root(memory.root).der


def test_without_a_file_every_start_has_a_root_of_its_own() -> None:
    assert root_in_memory(None) != root_in_memory(None)


def test_a_file_that_is_absent_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    former = os.umask(0)
    try:
        made = root_in_memory(file)
    finally:
        os.umask(former)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    assert root_in_memory(file) == made == read_root(file.read_bytes()).der


def test_a_file_that_is_there_is_used_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    content = b"a note\n" + write_root(module_root()) + b"another\n"
    file.write_bytes(content)
    assert root_in_memory(file) == module_root().der
    assert file.read_bytes() == content


def test_of_several_that_make_it_at_once_all_have_the_same(tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(root_in_memory(file))) for _ in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_without_the_packages_for_it_there_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(TrustMissing, match=r"^attestation.device: software needs the extra trust"):
        make_memory(None)


def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    file.write_bytes(write_root(module_root()).replace(b"PRIVATE", b"PUBLIC"))
    with pytest.raises(SoftwareModuleError, match=f"^attestation.root: {file}: it has no private"):
        make_memory(str(file))
    with pytest.raises(SoftwareModuleError, match=f"{tmp_path}: Is a directory: write a file"):
        make_memory(str(tmp_path))
    missing = tmp_path / "none" / "root.pem"
    with pytest.raises(SoftwareModuleError, match="cannot be made: No such file or directory"):
        make_memory(str(missing))
    assert "PRIVATE" not in repr(module_keys())
