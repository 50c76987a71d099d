"""How soon programs know that a name is forbidden: `python -m tests.benchmarks.refusals`.

Real programs in a real sandbox, by names. Each takes the time itself, from its lookup to its error,
so its start-up does not count, and whatever else it does for one request does; curl and wget are
measured from their start to their end. No name is asked for twice. The status is 1 where a median
is not below the limit.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import machine
from tests.benchmarks.measures import Figures
from tests.benchmarks.report import middle, table
from tests.sandbox.sandboxes import Sandbox, is_there, open_sandbox
from tests.support.compiling import compile_program

LOOKUPS = 5
LIMIT_MS = 100.0

KINDS = {"unlisted": "forbidden.test", "parent": "enclave-only.test"}
"""The domain of names that no list has, and of those that the parent alone refuses, when asked."""

MS_PER_NS = 1e-6

SOURCE = Path(__file__).with_name("refused_lookups.c")

PYTHON = """
import sys, time
import {module}
for name in sys.argv[1:]:
    started = time.perf_counter_ns()
    try:
        {call}
    except {error}:
        print(time.perf_counter_ns() - started)
"""

WHOLE_PROGRAM = """
import subprocess, sys, time
command = sys.argv[1 : -{lookups}]
for name in sys.argv[-{lookups}:]:
    started = time.perf_counter_ns()
    done = subprocess.run([*command, f"https://{{name}}/"], capture_output=True)
    print(time.perf_counter_ns() - started)
    assert done.returncode, done
"""

NODE = """
async function main() {
  for (const name of process.argv.slice(1)) {
    const started = process.hrtime.bigint();
    await fetch(`https://${name}/`).catch(() => {});
    console.log(String(process.hrtime.bigint() - started));
  }
}
main();
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A program, whose last arguments are names; for each it prints nanoseconds.

    Args:
        command: up to the names.
        needs: what a machine may lack.
    """

    command: tuple[str, ...]
    needs: str


def subjects(built: Path) -> dict[str, Subject]:
    """All of them, by name; `built` is where those in C are."""
    getaddrinfo = _python("socket", "socket.getaddrinfo(name, 443)", "socket.gaierror")
    requests = _python("requests", 'requests.get(f"https://{name}/")', "requests.ConnectionError")
    return {
        "C, glibc": Subject((str(built / "glibc"),), "gcc"),
        "C, musl, static": Subject((str(built / "musl-static"),), "musl-gcc"),
        "C, musl, dynamic": Subject((str(built / "musl-dynamic"),), "musl-gcc"),
        "Python, getaddrinfo": Subject(getaddrinfo, sys.executable),
        "Python, requests": Subject(requests, sys.executable),
        "Node, fetch": Subject(("node", "-e", NODE), "node"),
        "curl, all of it": Subject(_whole("curl", "-sS"), "curl"),
        "wget, all of it": Subject(_whole("wget", "-nv"), "wget"),
    }


def _python(module: str, call: str, error: str) -> tuple[str, ...]:
    return sys.executable, "-c", PYTHON.format(module=module, call=call, error=error)


def _whole(*command: str) -> tuple[str, ...]:
    return sys.executable, "-c", WHOLE_PROGRAM.format(lookups=LOOKUPS), *command


def build(directory: Path) -> None:
    """Compile what there is a compiler for."""
    if is_there("gcc"):
        compile_program("gcc", SOURCE, directory / "glibc")
    if is_there("musl-gcc"):
        compile_program("musl-gcc", SOURCE, directory / "musl-static", "-static")
        compile_program("musl-gcc", SOURCE, directory / "musl-dynamic")


def measure(sandbox: Sandbox, subject: Subject, label: str) -> list[Figures]:
    """One program's samples, each with a figure for every kind of name."""
    taken: dict[str, list[float]] = {}
    for kind, domain in KINDS.items():
        names = [f"n{number}.{label}.{domain}" for number in range(LOOKUPS)]
        done = sandbox.run(*subject.command, *names)
        taken[kind] = [float(line) * MS_PER_NS for line in done.stdout.split()]
        assert len(taken[kind]) == LOOKUPS, done
    return [{f"{kind} ms": taken[kind][number] for kind in KINDS} for number in range(LOOKUPS)]


def options(directory: Path) -> Iterator[str]:
    """Those of `vsockproxy sandbox`: nothing is allowed by both sides."""
    wildcard = {"address": f"**.{KINDS['parent']}", "port": 443}
    for side, config in {
        "parent": {"listen": "vsock://any:5000"},
        "enclave": {"parent": "vsock://3:5000", "allowlist": [wildcard]},
    }.items():
        file = directory / f"{side}.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        yield from (f"--config-{side}", str(file))


def main() -> int:
    """Print the medians of all programs; the status."""
    for key, value in machine.describe().items():
        print(f"{key}: {value}")
    samples: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        build(directory)
        with open_sandbox(*options(directory), directory=directory) as sandbox:
            for number, (name, subject) in enumerate(subjects(directory).items()):
                is_here = is_there(subject.needs)
                samples[name] = measure(sandbox, subject, f"p{number}") if is_here else []
    title = (
        f"From the lookup of a forbidden name to the error: medians of {LOOKUPS}; unlisted, or "
        "listed by the enclave and not by the parent"
    )
    print(*table(title, samples, []), sep="\n")
    slowest = max(
        middle(taken, figure) or 0.0 for taken in samples.values() if taken for figure in taken[0]
    )
    print(f"the slowest median is {slowest:.1f} ms, of at most {LIMIT_MS:.0f} ms")
    return int(slowest >= LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
