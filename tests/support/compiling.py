"""C programs that tests run, compiled where they are needed."""

import subprocess
from pathlib import Path

_WARNINGS = ("-Wall", "-Wextra", "-Werror")


def compile_program(compiler: str, source: Path, program: Path, *options: str) -> Path:
    """Compile `source` to `program`, which is given back.

    Raises:
        AssertionError: the compiler has something to say.
    """
    command = [compiler, "-O1", *_WARNINGS, *options, "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return program
