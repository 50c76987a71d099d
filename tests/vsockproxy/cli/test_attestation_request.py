"""`vsockproxy attestation request`: a document on standard output or in a file."""

import base64
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.nsm_server import document_fields, nsm_socket
from tests.support.terminal import Shell
from vsockproxy.cli.main import main
from vsockproxy.nsm_locations import DEVELOPMENT_HINT, NSM_VARIABLE
from vsockproxy.session.attesting import session_user_data


@pytest.fixture
def module() -> Iterator[Path]:
    with (
        tempfile.TemporaryDirectory(prefix="vsockproxy-nsm-") as name,
        nsm_socket(Path(name, "nsm.sock")) as path,
    ):
        yield path


def run(module: Path, *arguments: str) -> Result:
    command = ["attestation", "request", *arguments]
    return CliRunner().invoke(main, command, env={NSM_VARIABLE: str(module)})


def test_a_document_is_written_as_it_is(module: Path) -> None:
    done = run(module)
    assert done.exit_code == 0
    fields = document_fields(done.stdout_bytes)
    assert [fields[name] for name in ("user_data", "nonce", "public_key")] == [None, None, None]


def test_it_says_that_the_module_is_software(module: Path) -> None:
    expected = f"warning: {module} is a software NSM: the document proves nothing\n"
    assert run(module).stderr == expected


def test_values_are_hex_or_a_file(module: Path, tmp_path: Path) -> None:
    (tmp_path / "key.der").write_bytes(b"a key")
    options = ("--user-data", "6F6b", "--nonce", "", "--public-key", str(tmp_path / "key.der"))
    fields = document_fields(run(module, *options).stdout_bytes)
    assert fields["user_data"] == b"ok"
    assert fields["nonce"] == b""
    assert fields["public_key"] == b"a key"


def test_a_file_whose_name_is_hex_is_written_with_its_directory(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "abcd").write_bytes(b"in the file")
    monkeypatch.chdir(tmp_path)
    assert document_fields(run(module, "--nonce", "./abcd").stdout_bytes)["nonce"] == b"in the file"
    assert document_fields(run(module, "--nonce", "abcd").stdout_bytes)["nonce"] == b"\xab\xcd"


def test_a_document_goes_into_a_file(module: Path, tmp_path: Path) -> None:
    file = tmp_path / "document.cbor"
    done = run(module, "--nonce", "0102", "--output", str(file))
    assert (done.exit_code, done.stdout) == (0, "")
    assert document_fields(file.read_bytes())["nonce"] == b"\x01\x02"


def test_a_terminal_gets_base64(module: Path) -> None:
    with Shell(**{NSM_VARIABLE: str(module)}) as shell:
        shell.type(f"{sys.executable} -m vsockproxy attestation request 2>/dev/null; echo d''one\n")
        shown = shell.wait_for("done").splitlines()
    (line,) = (each for each in shown if each.startswith("hEShATgi"))
    assert document_fields(base64.b64decode(line))["nonce"] is None


def test_a_pipe_gets_bytes(module: Path) -> None:
    command = [sys.executable, "-m", "vsockproxy", "attestation", "request"]
    done = subprocess.run(
        command, env={NSM_VARIABLE: str(module)}, capture_output=True, timeout=60, check=True
    )
    assert document_fields(done.stdout)["module_id"]


WRONG = {
    "neither hex nor a file": (("--nonce", "xyz"), "'xyz' is no hex, and no file that can be read"),
    "half of a byte": (("--nonce", "abc"), "'abc' is no hex, and no file"),
    "too long in hex": (("--nonce", "00" * 1025), "nonce of 1025 bytes, over 1024"),
    "a session's user data": (
        ("--user-data", session_user_data(16).hex()),
        "are for sessions with the parent alone",
    ),
    "an empty key": (("--public-key", ""), "an empty public_key: leave it out"),
}


@pytest.mark.parametrize(("options", "text"), WRONG.values(), ids=WRONG)
def test_arguments_that_cannot_be_used(module: Path, options: tuple[str, ...], text: str) -> None:
    done = run(module, *options)
    assert done.exit_code == 2
    assert text in done.stderr


def test_a_file_that_is_too_long(module: Path, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(1025))
    done = run(module, "--nonce", str(tmp_path / "long"))
    assert done.exit_code == 2
    assert "holds more than 1024 bytes" in " ".join(done.stderr.split())


def test_without_a_module_there_is_no_document(tmp_path: Path) -> None:
    done = run(tmp_path / "none")
    assert done.exit_code == 1
    assert (
        done.stderr
        == f"no document: {tmp_path}/none: No such file or directory: {DEVELOPMENT_HINT}\n"
    )
    assert done.stdout == ""


def test_a_file_that_cannot_be_written(module: Path, tmp_path: Path) -> None:
    done = run(module, "--output", str(tmp_path / "none" / "document.cbor"))
    assert done.exit_code == 2
    assert "cannot be written: No such file or directory" in " ".join(done.stderr.split())
