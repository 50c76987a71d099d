"""The keys that the schema has and this version does not act on yet.

A key leaves this table when its feature is built; nothing else knows of it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from vsockproxy.config.conversion import Found
from vsockproxy.config.errors import Fault
from vsockproxy.config.model import (
    EnclaveForward,
    Section,
)
from vsockproxy.config.source import join_path

__all__ = ("check_unbuilt",)


def _is_not_empty(value: Any) -> bool:
    return bool(value)


_UNBUILT: Final[tuple[tuple[type[Section], str, Callable[[Any], bool], str], ...]] = (
    (EnclaveForward, "tls", _is_not_empty, "remove it"),
)
"""The section, the key, which of its values need the feature, what to do."""


def check_unbuilt(sections: Iterable[Found]) -> Iterator[Fault]:
    """Yield a fault for each written key whose feature is not in this version."""
    for found in sections:
        for section_type, key, needs_feature, mend in _UNBUILT:
            if (
                isinstance(found.section, section_type)
                and key in found.written
                and needs_feature(getattr(found.section, key))
            ):
                yield Fault(join_path(found.path, key), "not in this version", mend)
