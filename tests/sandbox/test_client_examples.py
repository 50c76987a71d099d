"""The programs that docs/client.md shows run as they are, in a sandbox with a web server."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.sandbox.sandboxes import run_sandbox
from tests.support.certificates import Authority
from tests.support.tls_origin import Origin

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def allowed(authority: Authority, namespaces: None) -> Iterator[tuple[str, str]]:
    del namespaces
    with Origin(authority.context("example.com")) as origin:
        yield "--allow", f"example.com:443={origin.address}"


def test_there_is_one_for_each_loop() -> None:
    assert ["asyncio.run(main())" in program for program in PROGRAMS] == [True, False]
    assert ["trio.run(main)" in program for program in PROGRAMS] == [False, True]


@pytest.mark.parametrize("program", PROGRAMS, ids=["asyncio", "trio"])
def test_a_program_runs_as_it_is_shown(
    program: str, allowed: tuple[str, str], trust: Mapping[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "fetch.py"
    file.write_text(program)
    done = run_sandbox(allowed, [sys.executable, str(file)], trust)
    assert done.status == 0, done.stderr
    head, _, rest = done.stdout.partition("hello from example.com, over TLSv1.3\n")
    assert head.startswith("HTTP/1.")
    assert rest == ("\nnot_listed\n" if "refused.reason" in program else "")
