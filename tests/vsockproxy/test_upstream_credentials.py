"""The file with the credentials for the upstream proxy: what is taken, and what each fault says."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vsockproxy.policy.files import document_of
from vsockproxy.upstream_credentials import (
    MAX_FILE_BYTES,
    CredentialsNotUsable,
    credentials_fault,
    read_authorization,
)

GOOD = {
    "a line": (b"user:pass\n", b"Basic dXNlcjpwYXNz"),
    "a line without an end": (b"user:pass", b"Basic dXNlcjpwYXNz"),
    "a line of Windows": (b"user:pass\r\n", b"Basic dXNlcjpwYXNz"),
    "a password with colons and spaces": (b"u:a: b\n", b"Basic dTphOiBi"),
    "an empty password": (b"u:\n", b"Basic dTo="),
    "letters beyond ASCII": ("u:\N{SNOWMAN}".encode(), b"Basic dTrimIM="),
}


def written(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(("content", "header"), GOOD.values(), ids=GOOD)
def test_a_line_becomes_the_header(tmp_path: Path, content: bytes, header: bytes) -> None:
    assert read_authorization(written(tmp_path / "c", content)) == header


def make_directory(path: Path) -> None:
    path.mkdir(mode=0o700)


def make_pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda path: None, "cannot be read: No such file or directory"),
    "a directory": (make_directory, "is no regular file"),
    "a pipe that nobody writes to": (make_pipe, "is no regular file"),
    "a file for all to read": (
        lambda path: written(path, b"u:secret", 0o644),
        "has mode 0644, which is open to everybody: take it from others with chmod o=",
    ),
    "a file for all to write": (lambda path: written(path, b"u:secret", 0o602), "has mode 0602"),
    "no colon": (lambda path: written(path, b"secret"), "does not hold user:password"),
    "no user": (lambda path: written(path, b":secret"), "does not hold user:password"),
    "nothing": (lambda path: written(path, b""), "does not hold user:password"),
    "two lines": (lambda path: written(path, b"u:secret\nb:c\n"), "or a second line"),
    "a control character": (lambda path: written(path, b"u:secret\x07"), "a control character"),
    "too much": (lambda path: written(path, b"u:" + b"s" * MAX_FILE_BYTES), "more than 4096 bytes"),
}


@pytest.mark.parametrize(("make", "what"), BAD.values(), ids=BAD)
def test_a_fault_names_the_file_and_not_what_it_holds(
    tmp_path: Path, make: Callable[[Path], object], what: str
) -> None:
    path = tmp_path / "c"
    make(path)
    with pytest.raises(CredentialsNotUsable) as caught:
        read_authorization(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert what in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_group_may_read_the_file(tmp_path: Path) -> None:
    assert read_authorization(written(tmp_path / "c", b"u:p", 0o640))


def test_a_fault_is_located_in_the_configuration(tmp_path: Path) -> None:
    text = "listen: vsock://any:1\nupstream_proxy:\n  address: proxy.test:3128\n"
    assert credentials_fault(document_of(text)) is None
    path = tmp_path / "c"
    document = document_of(f"{text}  credentials: {path}\n")
    fault = credentials_fault(document)
    assert fault is not None
    assert (fault.line, fault.path) == (4, "upstream_proxy.credentials")
    assert str(fault).endswith("No such file or directory: check the path and its permissions")
    written(path, b"u:p")
    assert credentials_fault(document) is None
