"""The programs that docs/client.md shows run as they are, in a sandbox with a web server."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.sandbox.ingress import ask, sandbox_behind
from tests.sandbox.sandboxes import run_sandbox
from tests.support.certificates import Authority
from tests.support.tls_origin import Origin

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
PROGRAMS = [program for program in SHOWN if "open_stream" in program]
LISTENING = [program for program in SHOWN if "listen(" in program]
INGRESS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def allowed(authority: Authority, namespaces: None) -> Iterator[tuple[str, str]]:
    del namespaces
    with Origin(authority.context("example.com")) as origin:
        yield "--allow", f"example.com:443={origin.address}"


def test_all_of_them_are_run() -> None:
    assert len(SHOWN) == len(PROGRAMS) + len(LISTENING)
    assert len(LISTENING) == len(INGRESS) == 1


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


def test_a_program_listens_as_it_is_shown(namespaces: None, tmp_path: Path) -> None:
    del namespaces
    file = tmp_path / "serve.py"
    file.write_text(LISTENING[0])
    with sandbox_behind(
        tmp_path, INGRESS[0], [sys.executable, str(file)], {"service": "web"}
    ) as port:
        client, answer = ask(port, b"hello\n")
        assert answer == f"{client} said hello\n".encode()
