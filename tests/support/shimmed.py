"""Python programs under the socket shim, as they are run: `python -m enclave_side.shim ...`.

    done = run_shimmed(path, "-c", "print('hello')")

    with Agent(path) as agent:
        agent.ask("blocking", "origin.test", 443)

They run without capabilities, where the machine has setpriv(1) to take them away.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

from tests.support.program import ROOT, environment
from vsockproxy.client.location import VARIABLE

__all__ = ("SECONDS", "Agent", "Done", "run_shimmed", "shim_command")

SECONDS = 60.0
"""For a program to end; none is supposed to take a tenth of it."""

_AGENT = "tests.enclave_side.shim.socket_shim.agent"


@dataclass(frozen=True, slots=True)
class Done:
    """What has become of a program."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """What the shim said."""
        return [line for line in self.stderr.splitlines() if line.startswith("vsockproxy: ")]


def without_privileges(command: Sequence[str]) -> list[str]:
    """The command, run without capabilities; as it is where that cannot be done."""
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.geteuid() != 0:
        return list(command)
    return [setpriv, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", *command]


def shim_command(*arguments: str, python: str = sys.executable) -> list[str]:
    """The command line of a program under the shim."""
    return without_privileges([python, "-m", "enclave_side.shim", *arguments])


def run_shimmed(
    path: str | None,
    *arguments: str,
    variables: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> Done:
    """Run a program to its end.

    Args:
        path: of the stream socket; None for an environment that names none.
        arguments: the program's command line.
        variables: of its environment, beside ours.
        cwd: where it runs.
        stdin: what it reads.
    """
    surroundings = environment(**(variables or {}))
    surroundings.pop(VARIABLE, None)
    if path is not None:
        surroundings[VARIABLE] = path
    done = subprocess.run(
        shim_command(*arguments),
        env=surroundings,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Agent:
    """A program under the shim that does what it is told; runs within a `with` block.

    Args:
        path: of the stream socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._stderr = TemporaryFile()
        self._process = subprocess.Popen(
            shim_command("-m", _AGENT),
            env=environment(**{VARIABLE: self._path}),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._stderr.close()

    def ask(self, name: str, *arguments: Any) -> Any:
        """Have it do something, by the name of a function of the agent; what that returns.

        Raises:
            AssertionError: the function raised something, which is told.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, arguments]).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the agent is gone: {self.stderr}"
        kind, value = json.loads(line)
        assert kind == "returned", value
        return value

    @property
    def stderr(self) -> str:
        """What it has written there so far."""
        return os.pread(self._stderr.fileno(), 1 << 24, 0).decode()
