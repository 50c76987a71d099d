"""Dockerfiles, as far as those of configs/image go: read into steps, and a stage carried out.

There is no Docker here, and what counts is not Docker: the commands of a RUN are run in a root of
Debian, as they are written, and files are copied as COPY says.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STEP_SECONDS: Final = 300

_MOUNT: Final = re.compile(r"--mount=type=bind,from=(\w+),source=(/\S+),target=(/\S+)\s+")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, and all that stands behind it."""

    instruction: str
    rest: str


@dataclass(frozen=True, slots=True)
class Stage:
    """What stands between one FROM and the next."""

    base: str
    name: str | None
    steps: tuple[Step, ...]

    @property
    def command(self) -> list[str]:
        """What a container would run: ENTRYPOINT, then CMD."""
        words: dict[str, list[str]] = {step.instruction: [] for step in self.steps}
        for step in self.steps:
            if step.instruction in ("ENTRYPOINT", "CMD"):
                words[step.instruction] = json.loads(step.rest)
        return words.get("ENTRYPOINT", []) + words.get("CMD", [])


def read_stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile."""
    stages: list[Stage] = []
    for step in _steps(text):
        if step.instruction == "FROM":
            base, *name = step.rest.split()
            stages.append(Stage(base, name[1] if name else None, ()))
        else:
            known = stages.pop()
            stages.append(Stage(known.base, known.name, (*known.steps, step)))
    return stages


def carry_out(stage: Stage, root: Path, context: Path, stages: Mapping[str, Path]) -> str:
    """Make an image of `root`; what the commands printed.

    Args:
        stage: the steps; ENTRYPOINT and CMD are none.
        root: a file tree of the stage's base; commands run in it, as root.
        context: the folder that COPY copies from.
        stages: what earlier stages came to, by name; folders that stand for their roots.
    """
    output = ""
    for step in stage.steps:
        match step.instruction:
            case "RUN":
                output += _run(step.rest, root, stages)
            case "COPY":
                *sources, target = shlex.split(step.rest)
                for source in sources:
                    _copy(context / source, root, target)
            case "ENTRYPOINT" | "CMD":
                pass
            case other:
                raise ValueError(f"{other}: no step of ours")
    return output


def _steps(text: str) -> Iterator[Step]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, rest = line.partition(" ")
        yield Step(instruction, rest.strip())


def _run(command: str, root: Path, stages: Mapping[str, Path]) -> str:
    mounted = []
    while mount := _MOUNT.match(command):
        stage, source, target = mount.groups()
        path = root / target.lstrip("/")
        shutil.copytree(stages[stage] / source.lstrip("/"), path)
        mounted.append(path)
        command = command[mount.end() :]
    done = subprocess.run(
        ["chroot", str(root), "/bin/sh", "-c", command],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=STEP_SECONDS,
        check=False,
    )
    for path in mounted:
        shutil.rmtree(path)
    if done.returncode:
        raise AssertionError(f"{command}\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout.decode()


def _copy(source: Path, root: Path, target: str) -> None:
    path = root / target.lstrip("/")
    if target.endswith("/"):
        path = path / source.name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, path)
