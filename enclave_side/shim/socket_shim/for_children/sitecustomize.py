"""Installs the socket shim, then runs the sitecustomize that this one stands in front of.

Python imports it at its start, in programs under the shim and in Python programs that they start:
of any version, with or without our package. It leaves nothing of ours on their sys.path.
"""

import os
import sys

MAIN_VARIABLE = "VSOCKPROXY_SHIM_MAIN"
"""The process id of the program that was started under the shim: it must not run without."""

_UNUSABLE = 2
_STDERR = 2


def _leave_path(directory: str) -> None:
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != directory]


def _install() -> None:
    is_main = os.environ.get(MAIN_VARIABLE) == str(os.getpid())
    os.environ.pop(MAIN_VARIABLE, None)
    try:
        from enclave_side.shim.socket_shim.installation import install

        install()
    except Exception as error:  # whatever it is, programs beside the main one run without
        _say(f"no socket shim in {sys.executable}: {error}", is_main)
        if is_main:
            os._exit(_UNUSABLE)


def _say(what: str, is_main: bool) -> None:
    mend = "install vsockproxy for it" if is_main else "its connections go past the shim"
    try:
        os.write(_STDERR, f"vsockproxy: {what}: {mend}\n".encode("utf-8", "replace"))
    except OSError:
        return  # closed, or nobody reads any more


def _run_next() -> None:
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if __name__ == "sitecustomize":
    _leave_path(os.path.dirname(os.path.abspath(__file__)))
    _install()
    _run_next()
