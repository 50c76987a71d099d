"""Ties tests to the rules of WIRE_FORMAT.md: `@covers("W-017")`."""

from collections.abc import Callable
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])


def covers(*rules: str) -> Callable[[Test], Test]:
    """Say that a test feeds raw bytes to an implementation and sees what these rules expect.

    tests/vsockproxy/session/test_wire_rules.py reads the source for it: each rule has a test.
    """
    assert all(rule.startswith("W-") for rule in rules), rules

    def same(test: Test) -> Test:
        return test

    return same
