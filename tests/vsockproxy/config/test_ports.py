from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.config.ports import (
    EVERY_PORT,
    PortSpan,
    format_ports,
    parse_range,
    rule_ports,
    subtract_ports,
)

RANGES: dict[str, tuple[str, PortSpan | None]] = {
    "a range": ("80-90", (80, 90)),
    "one port": ("80-80", (80, 80)),
    "every port": ("1-65535", (1, 65_535)),
    "falling": ("90-80", None),
    "from 0": ("0-80", None),
    "beyond": ("80-65536", None),
    "leading zero": ("080-90", None),
    "spaces": ("80 - 90", None),
    "no range": ("80", None),
    "a line feed behind": ("80-90\n", None),
}


@pytest.mark.parametrize(("text", "span"), RANGES.values(), ids=RANGES)
def test_a_range_is_parsed(text: str, span: PortSpan | None) -> None:
    assert parse_range(text) == span


def test_the_ports_of_a_rule_are_sorted_and_merged() -> None:
    assert rule_ports(443, None) == ((443, 443),)
    assert rule_ports(None, None) == EVERY_PORT
    assert rule_ports(None, [90, "80-85", 443, "84-89"]) == ((80, 90), (443, 443))


def test_a_rule_that_was_not_checked_is_an_error() -> None:
    with pytest.raises(ValueError, match="'9-1' is no port range"):
        rule_ports(None, ["9-1"])


def test_ports_are_written_as_a_rule_has_them() -> None:
    assert format_ports(((80, 90), (443, 443))) == "80-90, 443"


spans = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))),
    max_size=6,
)


def _as_set(ports: tuple[PortSpan, ...] | list[PortSpan]) -> set[int]:
    return {port for low, high in ports for port in range(low, high + 1)}


@given(spans, spans)
def test_subtraction_is_that_of_sets(ports: list[PortSpan], taken: list[PortSpan]) -> None:
    left = subtract_ports(ports, taken)
    assert _as_set(left) == _as_set(ports) - _as_set(taken)
    assert list(left) == sorted(left)
    for (_, high), (low, _) in pairwise(left):
        assert high + 1 < low
