"""The demo itself, and that it fails if anything happens otherwise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.__main__ import show
from tests.demo.steps import Step
from tests.demo.typed import Screen, type_line
from tests.sandbox.sandboxes import NOT_PERMITTED, need

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 20.0
REFUSED = "2026-01-02T03:04:05.678Z warning event=decision allowed=false"


def run_demo(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.demo"],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def without_words_of_others(text: str) -> str:
    """Without what depends on the version of curl, and on the kernel's modules."""
    text = re.sub(r"^curl: \(56\) .*$", "curl: (56)", text, flags=re.MULTILINE)
    return re.sub(r"^\[\(1, 'lo'\).*\]$", "[(1, 'lo')]", text, flags=re.MULTILINE)


def test_what_it_prints_is_in_the_readme() -> None:
    need("curl")
    done = run_demo()
    if not_permitted := NOT_PERMITTED.search(done.stdout):
        pytest.skip(f"no sandbox here: {not_permitted[0]}")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("\n$ make demo\n")[2].partition("\n```\n")[0]
    assert without_words_of_others(shown + "\n") == without_words_of_others(done.stdout)


def test_it_says_that_curl_is_missing() -> None:
    done = run_demo(PATH="/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "demo: curl is missing: apt-get install curl\n"


STEP = Step("Said before.", f"echo shown; echo {REFUSED}", "shown\n", audit=(".*allowed=false",))

OTHERWISE: dict[str, tuple[str, str]] = {
    "another output": (f"echo other; echo {REFUSED}", "the output above is not like 'shown\\n'"),
    "another status": (f"{STEP.line}; exit 3", "the exit status is 3, not 0"),
    "no line in the log": ("echo shown", "the decisions in the log are not like"),
    "a line too many": (f"{STEP.line}; echo {REFUSED}", "the decisions in the log are not like"),
    "no sandbox": (
        "echo vsockproxy: new user + pid namespaces: Operation not permitted; exit 1",
        "there can be no sandbox here, the line above says why",
    ),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_a_step_that_goes_otherwise_fails(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, complaint = OTHERWISE[case]
    step = Step(STEP.text, line, STEP.output, STEP.status, STEP.audit)
    assert not show(step, os.environ)
    assert capsys.readouterr().err.startswith(f"demo: {complaint}")


def test_a_step_is_shown_as_at_a_terminal_without_times(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert show(STEP, os.environ)
    assert capsys.readouterr() == (
        f"Said before.\n\n$ {STEP.line}\nshown\nwarning event=decision allowed=false\n\n",
        "",
    )


def test_a_log_line_within_another_line_is_found() -> None:
    line = f"printf 'curl: '; echo {REFUSED}; echo '(56) no'; exit 5"
    screen = type_line(line, os.environ, ROOT, DEADLINE_SECONDS)
    assert screen == Screen("curl: (56) no\n", ("warning event=decision allowed=false",), 5)


def test_a_command_that_does_not_end_is_stopped() -> None:
    with pytest.raises(TimeoutError, match=r"longer than 0\.1 s"):
        type_line("sleep 60", os.environ, ROOT, 0.1)
