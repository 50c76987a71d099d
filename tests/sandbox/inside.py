"""The command of a sandbox that runs many programs, one after another, as its stdin asks.

Starting a sandbox takes longer than most programs, so that a module of tests shares one. A line on
stdin and a line on stdout are JSON: `Sandbox.run` is at the other end.
"""

import json
import os
import subprocess
import sys

DEADLINE_SECONDS = 60
TIMED_OUT = 124
"""The status that timeout(1) gives."""


def main() -> None:
    """Run programs until stdin ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            done = subprocess.run(
                asked["command"],
                env={**os.environ, **asked["variables"]},
                cwd=asked["directory"],
                input=asked["typed"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=DEADLINE_SECONDS,
                check=False,
            )
            answer = {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        except subprocess.TimeoutExpired as error:
            answer = {"status": TIMED_OUT, "stdout": "", "stderr": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
