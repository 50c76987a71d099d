"""`make demo`: runs the steps, shows what they print, and fails if anything else happens.

What it prints is in README.md to the letter, so ports, times and paths stay in variables.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.demo.steps import CONCLUSION, INTRODUCTION, STEPS, Step
from tests.demo.typed import type_line
from tests.support.certificates import Authority
from tests.support.tls_origin import Origin

ROOT = Path(__file__).parents[2]
STEP_SECONDS = 30.0
_NO_SANDBOX = re.compile(r"^vsockproxy: ", re.MULTILINE)


def main() -> int:
    """Run the demo; the exit status, 0 only if everything happened as it should."""
    # The interpreter of this project and its commands come first, as in an activated environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if shutil.which("curl", path=path) is None:
        return _fail("curl is missing: apt-get install curl")
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="vsockproxy-demo-"))
        )
        authority = Authority(directory)
        origin = stack.enter_context(Origin(authority.context("origin.test")))
        variables = {
            **os.environ,
            "PATH": path,
            "ORIGIN": origin.address,
            "CURL_CA_BUNDLE": str(authority.file),
            "SSL_CERT_FILE": str(authority.file),
        }
        print(INTRODUCTION)
        for step in STEPS:
            if not show(step, variables):
                return 1
    print(CONCLUSION)
    return 0


def show(step: Step, variables: Mapping[str, str]) -> bool:
    """Run a step and print what a terminal would show; whether it was what it should be."""
    if step.text:
        print(step.text, end="\n\n")
    print(f"$ {step.line}", flush=True)
    try:
        screen = type_line(step.line, variables, ROOT, STEP_SECONDS)
    except TimeoutError as error:
        _fail(str(error))
        return False
    audit = [line for line in screen.log if " event=decision " in line]
    print(screen.output, *(f"{line}\n" for line in audit), sep="", flush=True)
    differences = step.differences(screen.output, screen.status, audit)
    if differences and _NO_SANDBOX.search(screen.output):
        differences = ["there can be no sandbox here, the line above says why"]
    elif differences:
        differences += [line for line in screen.log if line not in audit]
    for difference in differences:
        _fail(difference)
    return not differences


def _fail(what: str) -> int:
    print(f"demo: {what}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
