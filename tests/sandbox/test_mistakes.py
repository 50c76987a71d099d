"""What a newcomer types at first, and what helps: one line that says what to write instead."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vsockproxy.cli import main

EXIT_USE = 2


def sandbox(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["sandbox", *arguments], prog_name="vsockproxy")


ALLOWED: dict[str, tuple[str, str]] = {
    "no port": ("origin.test", "'origin.test' has no port: write HOST:PORT"),
    "nothing": ("", "'' has no port: write HOST:PORT"),
    "a URL": ("https://origin.test/", "'https://origin.test/' is a URL: write HOST:PORT"),
    "a URL with a port": ("http://origin.test:8080/path", "is a URL: write HOST:PORT"),
    "a service's name": ("origin.test:https", "'https' is no port: write a number in 1-65535"),
    "port 0": ("origin.test:0", "'0' is no port: write a number in 1-65535"),
    "an IPv6 address without brackets": ("::1:443", "write [::1]:443"),
    "every host": ("*:443", "'*' would match every name"),
    "capital letters": ("Origin.Test:443", "write origin.test"),
    "no port to dial": ("origin.test:443=127.0.0.1", "write 127.0.0.1:PORT"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_allow(case: str) -> None:
    typed, mend = ALLOWED[case]
    result = sandbox("--allow", typed, "--", "true")
    assert result.exit_code == EXIT_USE
    assert result.stderr.splitlines()[-1].startswith("Error: Invalid value for --allow: ")
    assert mend in result.stderr.splitlines()[-1]


USED: dict[str, tuple[list[str], str]] = {
    "no command": ([], "Error: Missing argument '-- CMD [ARG]...'."),
    "nothing after the dashes": (["--"], "Error: Missing argument '-- CMD [ARG]...'."),
    "an option that is misspelt": (
        ["--alow", "origin.test:443", "--", "true"],
        "Error: No such option '--alow'. Did you mean '--allow'?",
    ),
    "a file that is not there": (
        ["--config-parent", "/nowhere/parent.yaml", "--", "true"],
        "/nowhere/parent.yaml: cannot be read: no such file or directory: "
        "check the path and its permissions",
    ),
}


@pytest.mark.parametrize("case", USED)
def test_use(case: str) -> None:
    arguments, last_line = USED[case]
    result = sandbox(*arguments)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (EXIT_USE, last_line)


FILES: dict[str, tuple[str, str]] = {
    "a misspelt key": (
        "listen: vsock://any:5000\nalowlist: []\n",
        ":2: alowlist: unknown key: write allowlist",
    ),
    "the other side's file": (
        "parent: vsock://3:5000\n",
        ":1: (file): this is an enclave's file: give a parent's file, which has listen",
    ),
    "broken YAML": (
        "listen: vsock://any:5000\nallowlist:\n  - {address: origin.test, port: 443\n",
        ":3: allowlist[0]: a mapping that is not closed: end it with '}'",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_file(case: str, tmp_path: Path) -> None:
    content, complaint = FILES[case]
    file = tmp_path / "parent.yaml"
    file.write_text(content)
    result = sandbox("--config-parent", str(file), "--", "true")
    assert (result.exit_code, result.stdout) == (EXIT_USE, "")
    assert result.stderr == f"{file}{complaint}\n"
