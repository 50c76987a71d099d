"""The roots that a parent's file trusts, and what each fault says."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.nsm_server import module_root
from tests.vsockproxy.policy.files import document_of
from vsockproxy.attestation.documents import AWS_ROOT
from vsockproxy.cli.main import main
from vsockproxy.trusted_roots import read_trusted_roots, trusted_roots_fault

PCR = "ab" * 48


def parent(root: Path, entry: str = f"{{pcrs: {{0: {PCR}}}}}") -> str:
    return f"listen: vsock://any:5000\nattestation: {{root: {root}}}\nenclaves: [{entry}]\n"


def test_without_a_file_it_is_that_of_aws() -> None:
    assert read_trusted_roots(None) == (AWS_ROOT,)


def test_a_file_may_hold_several(tmp_path: Path) -> None:
    pem = module_root().certificate.public_bytes(Encoding.PEM)
    (tmp_path / "roots.pem").write_bytes(b"of our tests\n" + pem + pem)
    der = module_root().certificate.public_bytes(Encoding.DER)
    assert read_trusted_roots(str(tmp_path / "roots.pem")) == (der, der)
    assert trusted_roots_fault(document_of(parent(tmp_path / "roots.pem"))) is None


def nothing(path: Path) -> None:
    """There is no file."""


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (nothing, "cannot be read: No such file or directory"),
    "a folder": (Path.mkdir, "cannot be read: Is a directory"),
    "a pipe that nobody writes into": (os.mkfifo, "no PEM certificate"),
    "something else": (lambda path: path.write_bytes(b"x" * 100_000), "no PEM certificate"),
    "half a certificate": (
        lambda path: path.write_bytes(b"-----BEGIN CERTIFICATE-----\nMIIC"),
        "no PEM certificate",
    ),
}


@pytest.mark.parametrize(("make", "text"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_is_none(make: Callable[[Path], object], text: str, tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    make(path)
    fault = str(trusted_roots_fault(document_of(parent(path))))
    assert f"parent.yaml:2: attestation.root: {path}: {text}" in fault
    assert fault.endswith(": write the path of a PEM file that this user may read")


def test_check_finds_what_a_start_would_find(tmp_path: Path) -> None:
    file = tmp_path / "parent.yaml"
    file.write_text(parent(tmp_path / "root.pem"))
    done = CliRunner().invoke(main, ["check", str(file)])
    assert done.exit_code == 1
    assert done.stdout.startswith(f"{file}:2: attestation.root: {tmp_path}/root.pem: cannot be ")
    started = CliRunner().invoke(main, ["parent", "--config", str(file)])
    assert (started.exit_code, started.stderr) == (2, done.stdout)
    (tmp_path / "root.pem").write_bytes(module_root().certificate.public_bytes(Encoding.PEM))
    assert CliRunner().invoke(main, ["check", str(file)]).exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(parent(Path("/absent.pem"), "{cid: 16}"), id="nobody attests"),
        pytest.param("parent: vsock://3:5000\n", id="an enclave"),
    ],
)
def test_who_verifies_nothing_needs_no_root(text: str) -> None:
    name = "enclave.yaml" if text.startswith("parent") else "parent.yaml"
    assert trusted_roots_fault(document_of(text, name)) is None
