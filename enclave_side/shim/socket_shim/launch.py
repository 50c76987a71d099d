"""The command `python -m enclave_side.shim`: starts a program with the shim on its PYTHONPATH.

Python itself runs the program, by its own command line: `sys.argv`, `sys.path[0]`, `__main__`, its
tracebacks and its exit status are what they always are.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from enclave_side.shim.socket_shim.for_children.sitecustomize import MAIN_VARIABLE
from enclave_side.shim.socket_shim.stderr_lines import write_line
from vsockproxy.client.location import stream_socket_path
from vsockproxy.client.opening import connect
from vsockproxy.errors import VsockproxyError

__all__ = (
    "USAGE",
    "interpreter_options",
    "main",
    "program_environment",
)

USAGE: Final = (
    "usage: python [OPTION...] -m enclave_side.shim APP [ARG...]\n"
    "       python [OPTION...] -m enclave_side.shim -m MODULE [ARG...]\n"
    "       python [OPTION...] -m enclave_side.shim -c CODE [ARG...]\n"
    "Run a Python program whose connections go over the stream socket of the enclave.\n"
)

_MODULE: Final = "enclave_side.shim"
_CHILDREN: Final = str(Path(__file__).parent / "for_children")
_LISTENS_SECONDS: Final = 5.0
"""For the stream socket to take a connection, if it is busy."""
_UNUSABLE: Final = 2


def main(arguments: Sequence[str]) -> int:
    """Become the program; returns only if that is not possible.

    Args:
        arguments: its command line, as python takes it.

    Returns:
        The exit status: 2, and 0 for help.
    """
    first = arguments[0] if arguments else ""
    if first in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if not first or (first.startswith("-") and first != "-" and first[:2] not in ("-m", "-c")):
        sys.stderr.write(USAGE)
        return _UNUSABLE
    if sys.flags.ignore_environment or sys.flags.no_site:
        write_line("python's options -E, -I and -S keep the socket shim out: run it without them")
        return _UNUSABLE
    try:
        connect(stream_socket_path(), _LISTENS_SECONDS).close()
    except (VsockproxyError, TimeoutError) as error:
        write_line(f"the socket shim needs a stream socket: {error}")
        return _UNUSABLE
    options = interpreter_options(sys.orig_argv, len(arguments))
    command = [sys.executable, *options, *arguments]
    try:
        os.execve(sys.executable, command, program_environment(os.environ, os.getpid()))
    except OSError as error:
        write_line(f"cannot run {sys.executable!r}: {error.strerror}")
    return _UNUSABLE


def interpreter_options(original: Sequence[str], given: int) -> list[str]:
    """Python's own options.

    Args:
        original: the whole command line, `python [OPTION...] -m enclave_side.shim ...`.
        given: how many of its words, at the end, are the program's.
    """
    *options, last = original[1 : len(original) - given] or [""]
    if last == _MODULE and options:
        *options, last = options
    else:
        last = last.removesuffix(_MODULE)
    if not last.startswith("-") or not last.endswith("m"):
        return []  # something else has started us, with options of its own
    letters = last[:-1]  # of -um, -u
    return [*options, letters] if len(letters) > 1 else options


def program_environment(inherited: Mapping[str, str], process: int) -> dict[str, str]:
    """The variables of a program under the shim.

    Args:
        inherited: ours.
        process: its process id.
    """
    others = inherited.get("PYTHONPATH", "").split(os.pathsep)
    paths = [_CHILDREN, *(path for path in others if path not in ("", _CHILDREN))]
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(paths),
        MAIN_VARIABLE: str(process),
    }
