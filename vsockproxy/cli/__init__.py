"""The command line: one click command in each module, imported when it is used."""

from vsockproxy.cli.main import main

__all__ = ("main",)
