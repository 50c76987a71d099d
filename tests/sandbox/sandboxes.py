"""Sandboxes as tests use them: real ones, started by the command `vsockproxy sandbox`."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.ways import Way
from tests.support.program import Program, command_line

PACKAGES = {
    "busybox": "busybox",
    "curl": "curl",
    "git": "git",
    "hcloud": "hcloud-cli",
    "java": "default-jre-headless",
    "musl-gcc": "musl-tools",
    "node": "nodejs",
    "openssl": "openssl",
    "perl": "perl",
    "psql": "postgresql-client",
    "wget": "wget",
    "/usr/share/nodejs/axios": "node-axios",
    "/usr/share/nodejs/https-proxy-agent": "node-https-proxy-agent",
    "/usr/share/perl5/IO/Socket/SSL.pm": "libio-socket-ssl-perl",
}
"""Debian's packages for what tests run: by a program's name, or a path."""

MODULES = {
    "aiohttp": "aiohttp",
    "aiohttp_socks": "aiohttp-socks",
    "socks": "'requests[socks]'",
    "socksio": "'httpx[socks]'",
}
"""What brings the Python modules that programs in a sandbox import."""

GIT_VARIABLES = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@origin.test",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@origin.test",
}
"""They keep git from the settings of whoever runs the tests."""

AWS_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_MAX_ATTEMPTS": "1",
}
"""The same for boto3."""

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""In capitals too."""

NOT_PERMITTED = re.compile(r"vsockproxy: (?:new|mounting|writing|setting) .*")
"""What `vsockproxy sandbox` says where there can be none: the step, why, and what to do."""


def need(*wanted: str) -> None:
    """Skip a test that wants what this machine lacks: a key of `PACKAGES` or of `MODULES`."""
    for each in wanted:
        if not is_there(each):
            how = (
                f"apt-get install {PACKAGES[each]}"
                if each in PACKAGES
                else f"pip install {MODULES[each]}"
            )
            pytest.skip(f"{each} is missing: {how}")


def is_there(wanted: str) -> bool:
    """Whether this machine has a program, a path or a Python module."""
    if wanted in MODULES:
        return importlib.util.find_spec(wanted) is not None
    return Path(wanted).exists() if wanted.startswith("/") else shutil.which(wanted) is not None


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended, and what it wrote."""

    status: int
    stdout: str
    stderr: str


class Sandbox:
    """A sandbox that runs one program after another.

    Args:
        program: the running command; `tests.sandbox.inside` is the command in it.
        directory: the working directory of each program in it.
    """

    def __init__(self, program: Program, directory: Path) -> None:
        self._program = program
        self._directory = directory

    def run(self, *command: str, typed: str = "", **variables: str) -> Done:
        """Run a program to its end, with `typed` on its stdin and more environment variables."""
        process = self._program.process
        assert process.stdin is not None
        assert process.stdout is not None
        asked = {
            "command": command,
            "variables": variables,
            "directory": str(self._directory),
            "typed": typed,
        }
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"the sandbox ended: {self._program.end()} {self._program.lines}"
        return Done(**json.loads(line))

    def refusal(self, host: str) -> dict[str, Any]:
        """The audit line that refuses `host`, which no other test asks for."""
        start = len(self._program.lines)
        while True:
            self._program.line_with(f'"host": "{host}"')
            for text in self._program.lines[start:]:
                if not text.startswith("{"):
                    continue  # what is told before there is a log
                line: dict[str, Any] = json.loads(text)
                if (line["event"], line.get("host")) == ("decision", host):
                    assert line["allowed"] is False
                    return line


SandboxWith = Callable[[Way], Sandbox]
"""Gives the sandbox that has a way in."""


@contextmanager
def open_sandbox(*options: str, directory: Path) -> Iterator[Sandbox]:
    """A sandbox for many programs, with these options of `vsockproxy sandbox`.

    Whoever runs the tests may sit behind a proxy, and read another language.
    """
    names = (*PROXY_VARIABLES, *map(str.upper, PROXY_VARIABLES))
    agent = (sys.executable, "-m", "tests.sandbox.inside")
    command = [
        *("env", *(f"--unset={name}" for name in names), "LC_ALL=C"),
        *command_line("sandbox", *options, "--", *agent),
    ]
    with Program(command, stdin=subprocess.PIPE) as program:
        yield Sandbox(program, directory)


def run_sandbox(
    options: Sequence[str],
    command: Sequence[str],
    variables: Mapping[str, str] | None = None,
    typed: bytes = b"",
) -> Done:
    """A sandbox for one command, as a user has it."""
    line = command_line("sandbox", *options, "--", *command)
    with Program(line, variables, stdin=subprocess.PIPE) as program:
        assert program.process.stdin is not None
        program.process.stdin.write(typed)
        program.process.stdin.flush()
        status, stdout = program.end()
        return Done(status, stdout, "\n".join(program.lines))
