"""A configuration file to a `Document`, or to the list of everything that is wrong with it."""

import difflib
from collections.abc import Iterator
from typing import Any, Final, cast

from vsockproxy.config.conversion import Conversion, convert_section
from vsockproxy.config.document import CONFIG_TYPES, Document, Kind, line_of
from vsockproxy.config.errors import (
    WHOLE_FILE,
    ConfigError,
    ConfigErrors,
    Fault,
    FileNotReadable,
)
from vsockproxy.config.model import AnyConfig, EnclaveConfig, ParentConfig
from vsockproxy.config.rules import check_sections
from vsockproxy.config.scalars import describe_value
from vsockproxy.config.source import BROKEN, MAX_FAULTS, MAX_FILE_BYTES, Source, read_source

__all__ = (
    "ConfigError",
    "ConfigErrors",
    "Document",
    "FileNotReadable",
    "Kind",
    "load",
    "locate",
    "parse",
    "read_file",
)

_REQUIRED_KEY: Final[dict[Kind, str]] = {
    "parent": "listen",
    "enclave": "parent",
    "aws": "allowlist",
}
"""The key that makes a file one of its kind."""

_KIND_NAMES: Final[dict[Kind, str]] = {
    "parent": "a parent's file",
    "enclave": "an enclave's file",
    "aws": "AWS's file",
}

_SIDES: Final[tuple[Kind, ...]] = ("parent", "enclave")
_SIDE_KEYS: Final = frozenset((*ParentConfig.__struct_fields__, *EnclaveConfig.__struct_fields__))
_BEGIN_MEND: Final = "write listen (a parent's file), parent (an enclave's) or allowlist (AWS's)"


def load(path: str, kind: Kind | None = None) -> Document:
    """Read and check a file.

    Args:
        path: the file, as the user gave it; errors repeat it.
        kind: which kind of file it has to be; by default its keys say it.

    Raises:
        FileNotReadable: it cannot be opened or read.
        ConfigErrors: it is not valid; holds every fault, up to 100.
    """
    return parse(read_file(path), path, kind)


def read_file(path: str) -> bytes:
    """Read a file, or one byte more of it than may be parsed.

    Raises:
        FileNotReadable: it cannot be opened or read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileNotReadable(path, (reason or str(error)).lower()) from None


def parse(content: bytes, file: str, kind: Kind | None = None) -> Document:
    """Check the content of a file; as `load`, without the file."""
    source = read_source(content)
    faults = list(source.faults)
    config: AnyConfig | None = None
    conversion = Conversion()
    if source.value is not BROKEN:
        kind = _find_kind(source.value, kind, faults)
        if kind is not None:
            config = _convert(source.value, kind, faults, conversion)
    if faults or config is None:
        raise ConfigErrors(locate(faults, source, file))
    empty = {path: words for path, words in conversion.absent.items() if path in source.unwritten}
    return Document(config, file, source.lines, empty)


def _convert(
    value: dict[str, Any], kind: Kind, faults: list[Fault], conversion: Conversion
) -> AnyConfig:
    config = convert_section(value, CONFIG_TYPES[kind], "", conversion)
    faults += conversion.faults
    faults += check_sections(conversion.sections)
    return cast("AnyConfig", config)


def _find_kind(value: Any, wanted: Kind | None, faults: list[Fault]) -> Kind | None:
    """Say which kind of file this is, or report why that cannot be said."""
    if not isinstance(value, dict):
        what = "the file is empty" if value is None else f"{describe_value(value)}, not keys"
        faults.append(Fault(WHOLE_FILE, what, _BEGIN_MEND, line=1))
        return None
    kinds: list[Kind] = [kind for kind in _SIDES if _REQUIRED_KEY[kind] in value]
    if len(kinds) > 1:
        what = "listen is for a parent's file, parent for an enclave's"
        faults.append(Fault("parent", what, "remove one of them"))
        return None
    if kinds and wanted in (None, kinds[0]):
        return kinds[0]
    if kinds and wanted is not None:
        mend = f"give {_KIND_NAMES[wanted]}, which has {_REQUIRED_KEY[wanted]}"
        faults.append(Fault(WHOLE_FILE, f"this is {_KIND_NAMES[kinds[0]]}", mend, line=1))
        return None
    if wanted is not None:
        return wanted
    for key in value.keys() - _SIDE_KEYS:
        if close := difflib.get_close_matches(key.lower(), ("listen", "parent"), n=1):
            faults.append(Fault(key, "unknown key", f"write {close[0]}"))
            return None
    if "allowlist" in value and _SIDE_KEYS.isdisjoint(value.keys() - {"allowlist"}):
        return "aws"
    faults.append(Fault(WHOLE_FILE, "neither listen nor parent", _BEGIN_MEND, line=1))
    return None


def locate(faults: list[Fault], source: Source, file: str) -> Iterator[ConfigError]:
    """Put a line to each fault, and bound their number."""
    located = [
        ConfigError(
            file,
            fault.line or line_of(source.lines, fault.path),
            fault.path or WHOLE_FILE,
            fault.what,
            fault.mend,
        )
        for fault in faults
    ]
    located.sort(key=lambda error: error.line)
    yield from located[:MAX_FAULTS]
    if len(located) > MAX_FAULTS:
        what = f"{len(located) - MAX_FAULTS} more errors"
        yield ConfigError(file, located[MAX_FAULTS].line, WHOLE_FILE, what, "mend these first")
