from pathlib import Path

import pytest
from click.testing import CliRunner

from vsockproxy.cli.check import command

PARENT = "listen: vsock://any:5000\nallowlist: [{address: a.b, port: 443}]\n"
ENCLAVE = "parent: vsock://3:5000\nallowlist: [{address: a.b, port: 443}]\n"
ENCLAVE_WITH_MORE = "parent: vsock://3:5000\nallowlist: [{address: a.b, ports: [80, 443]}]\n"
WARNING = (
    "enclave.yaml:2: allowlist[0]: warning: a.b port 80 is not allowed by parent.yaml: "
    "allow it there, or remove it here\n"
)


@pytest.fixture(autouse=True)
def in_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "parent.yaml": PARENT,
        "enclave.yaml": ENCLAVE,
        "more/enclave.yaml": ENCLAVE_WITH_MORE,
        "aws.yaml": "allowlist:\n- {address: kms.us-east-1.amazonaws.com, port: 443}\n",
        "broken.yaml": "listen: vsock://any:5000\nmode: x\nallowlist: [{address: '*', port: 1}]\n",
        "syntax.yaml": "listen: [vsock://any:5000\n",
        "metadata.yaml": "listen: vsock://any:5000\n"
        "allowlist: [{address: 169.254.169.254, port: 80, metadata: true}]\n",
        "run.yaml": "eif: /web.eif\ncpus: 2\nmemory: 2GiB\n",
        "run-broken.yaml": "cpus: 2\nmemory: 1MiB\neif: web.eif\n",
        "strange.yaml": "listen: vsock://any:5000\nmode: \u00e9\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "directory.yaml").mkdir()
    monkeypatch.chdir(tmp_path)


METADATA_WARNING = (
    "metadata.yaml:2: allowlist[0].metadata: warning: the unit vsockproxy-parent.service may not "
    "reach 169.254.169.254: a drop-in for it with IPAddressAllow=169.254.169.254 in [Service]\n"
)

RUNS = {
    "what the shipped unit does not allow": (["metadata.yaml"], 0, METADATA_WARNING, ""),
    "what the shipped unit does not allow, strictly": (
        ["--strict", "metadata.yaml"],
        1,
        METADATA_WARNING,
        "",
    ),
    "run-enclave's": (["run.yaml"], 0, "", "run.yaml: ok\n"),
    "run-enclave's among others": (
        ["parent.yaml", "run.yaml", "enclave.yaml"],
        0,
        "",
        "parent.yaml: ok\nrun.yaml: ok\nenclave.yaml: ok\n",
    ),
    "a fault in run-enclave's": (
        ["run-broken.yaml"],
        1,
        "run-broken.yaml:3: eif: 'web.eif' does not fit: write a whole path\n",
        "",
    ),
    "nothing new": (["--since", "parent.yaml", "parent.yaml"], 0, "", "parent.yaml: ok\n"),
    "what is newly allowed is no warning": (
        ["--strict", "--since", "enclave.yaml", "more/enclave.yaml"],
        0,
        "more/enclave.yaml:2: allowlist[0]: newly allowed: a.b port 80: for every enclave\n",
        "more/enclave.yaml: ok\n",
    ),
    "only files of its kind are compared": (
        ["--since", "enclave.yaml", "enclave.yaml", "parent.yaml"],
        0,
        "",
        "enclave.yaml: ok\nparent.yaml: ok\n",
    ),
    "an old file with errors": (
        ["--since", "broken.yaml", "parent.yaml"],
        1,
        "broken.yaml:2: mode: 'x' does not fit: write enforce or report\n"
        "broken.yaml:3: allowlist[0].address: '*' would match every name: "
        "write the names, or *.NAME for those below one\n",
        "parent.yaml: ok\n",
    ),
    "an old file that is missing": (
        ["--since", "missing.yaml", "parent.yaml"],
        2,
        "",
        "missing.yaml: cannot be read: no such file or directory: check the path and its "
        "permissions\nparent.yaml: ok\n",
    ),
    "a parent's file": (["parent.yaml"], 0, "", "parent.yaml: ok\n"),
    "an enclave's file": (["enclave.yaml"], 0, "", "enclave.yaml: ok\n"),
    "AWS's file": (["aws.yaml"], 0, "", "aws.yaml: ok\n"),
    "both sides that agree": (
        ["parent.yaml", "enclave.yaml"],
        0,
        "",
        "parent.yaml: ok\nenclave.yaml: ok\n",
    ),
    "both sides that agree, strictly": (
        ["--strict", "parent.yaml", "enclave.yaml"],
        0,
        "",
        "parent.yaml: ok\nenclave.yaml: ok\n",
    ),
    "errors": (
        ["broken.yaml"],
        1,
        "broken.yaml:2: mode: 'x' does not fit: write enforce or report\n"
        "broken.yaml:3: allowlist[0].address: '*' would match every name: "
        "write the names, or *.NAME for those below one\n",
        "",
    ),
    "a syntax error": (
        ["syntax.yaml"],
        1,
        "syntax.yaml:1: listen: a list that is not closed: end it with ']'\n",
        "",
    ),
    "one good and one bad file": (
        ["parent.yaml", "syntax.yaml"],
        1,
        "syntax.yaml:1: listen: a list that is not closed: end it with ']'\n",
        "parent.yaml: ok\n",
    ),
    "a file that is not there": (
        ["none.yaml"],
        2,
        "",
        "none.yaml: cannot be read: no such file or directory: "
        "check the path and its permissions\n",
    ),
    "a directory": (
        ["directory.yaml"],
        2,
        "",
        "directory.yaml: cannot be read: is a directory: check the path and its permissions\n",
    ),
    "a file that is not there and one with errors": (
        ["none.yaml", "syntax.yaml"],
        2,
        "syntax.yaml:1: listen: a list that is not closed: end it with ']'\n",
        "none.yaml: cannot be read: no such file or directory: "
        "check the path and its permissions\n",
    ),
    "a file with errors and one that is not there": (
        ["syntax.yaml", "none.yaml"],
        2,
        "syntax.yaml:1: listen: a list that is not closed: end it with ']'\n",
        "none.yaml: cannot be read: no such file or directory: "
        "check the path and its permissions\n",
    ),
    "one file twice": (["parent.yaml", "parent.yaml"], 0, "", "parent.yaml: ok\n"),
    "a file by another path": (
        ["./more/../parent.yaml"],
        0,
        "",
        "./more/../parent.yaml: ok\n",
    ),
    "letters beyond ASCII": (
        ["strange.yaml"],
        1,
        "strange.yaml:2: mode: '\u00e9' does not fit: write enforce or report\n",
        "",
    ),
}


@pytest.mark.parametrize(("arguments", "status", "stdout", "stderr"), RUNS.values(), ids=RUNS)
def test_check_prints_each_error_and_says_how_it_went(
    arguments: list[str], status: int, stdout: str, stderr: str
) -> None:
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (status, stdout, stderr)


@pytest.mark.parametrize(
    ("options", "status"), [([], 0), (["--strict"], 1)], ids=["not strict", "strict"]
)
def test_what_only_one_side_allows_is_a_warning(options: list[str], status: int) -> None:
    result = CliRunner().invoke(command, [*options, "parent.yaml", "more/enclave.yaml"])
    assert result.exit_code == status
    assert result.stdout == f"more/{WARNING}"
    assert result.stderr == "parent.yaml: ok\n"


def test_strict_does_not_hide_that_a_file_cannot_be_opened() -> None:
    arguments = ["--strict", "parent.yaml", "more/enclave.yaml", "none.yaml"]
    assert CliRunner().invoke(command, arguments).exit_code == 2


def test_a_side_with_errors_is_not_compared() -> None:
    result = CliRunner().invoke(command, ["broken.yaml", "enclave.yaml"])
    assert result.exit_code == 1
    assert "warning" not in result.stdout


def test_check_needs_a_file() -> None:
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    assert "Missing argument 'FILE...'" in result.stderr


def test_a_file_name_of_any_bytes_is_printed_as_it_is() -> None:
    name = b"\xff.yaml".decode("utf-8", "surrogateescape")
    Path(name).write_text("listen: x\n")
    result = CliRunner().invoke(command, [name])
    assert result.exit_code == 1
    assert result.stdout_bytes.startswith(b"\xff.yaml:1: listen: 'x' is no endpoint: ")


def test_an_old_file_of_another_kind_is_a_usage_error() -> None:
    result = CliRunner().invoke(command, ["--since", "enclave.yaml", "parent.yaml"])
    assert result.exit_code == 2
    assert "enclave.yaml is of another kind than FILE" in result.stderr


def test_a_reload_of_run_enclaves_file_is_no_question() -> None:
    result = CliRunner().invoke(command, ["--since", "run.yaml", "parent.yaml"])
    assert result.exit_code == 2
    assert "no reload changes an enclave" in " ".join(result.stderr.split())
