"""What is reported about a configuration file."""

from collections.abc import Iterable
from dataclasses import dataclass

from vsockproxy.errors import VsockproxyError

__all__ = ("WHOLE_FILE", "ConfigError", "ConfigErrors", "Fault", "FileNotReadable")

WHOLE_FILE = "(file)"
"""Stands in place of a path for what concerns no single key."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in a document, before it is known from which file that came.

    `line` is set where `path` alone does not say it: a key given twice, a broken syntax.
    """

    path: str
    what: str
    mend: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One fault in a file; `str()` is the line that `vsockproxy check` prints."""

    file: str
    line: int
    path: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path}: {self.what}: {self.mend}"


class ConfigErrors(VsockproxyError):
    """A file that breaks its schema; `errors` holds each fault, in the order of lines."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))


class FileNotReadable(VsockproxyError):
    """A file that cannot be opened or read.

    Args:
        file: the path as the user gave it.
        reason: why, in the system's words.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: cannot be read: {reason}: check the path and its permissions")
        self.file = file
        self.reason = reason
