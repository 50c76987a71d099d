import ipaddress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.addresses import AddressError
from vsockproxy.config.patterns import (
    AddressPattern,
    NameDepth,
    NamePattern,
    Pattern,
    contains,
    parse_pattern,
)

PATTERNS: dict[str, tuple[str, Pattern]] = {
    "a name": ("a.b", NamePattern(NameDepth.EXACT, "a.b")),
    "one label below a name": ("*.a.b", NamePattern(NameDepth.ONE_LABEL, "a.b")),
    "any depth below a name": ("**.a.b", NamePattern(NameDepth.ANY_DEPTH, "a.b")),
    "below a single label": ("*.b", NamePattern(NameDepth.ONE_LABEL, "b")),
    "an address": ("10.0.0.1", AddressPattern(ipaddress.ip_network("10.0.0.1"))),
    "a network": ("10.0.0.0/8", AddressPattern(ipaddress.ip_network("10.0.0.0/8"))),
    "every IPv4 address": ("0.0.0.0/0", AddressPattern(ipaddress.ip_network("0.0.0.0/0"))),
    "an IPv6 address": ("2001:db8::1", AddressPattern(ipaddress.ip_network("2001:db8::1"))),
    "an IPv6 network": ("2001:db8::/32", AddressPattern(ipaddress.ip_network("2001:db8::/32"))),
    "a mapped network": (
        "::ffff:10.0.0.0/104",
        AddressPattern(ipaddress.ip_network("::ffff:10.0.0.0/104")),
    ),
}


@pytest.mark.parametrize(("text", "pattern"), PATTERNS.values(), ids=PATTERNS)
def test_a_pattern_is_parsed_and_written_alike(text: str, pattern: Pattern) -> None:
    assert parse_pattern(text) == pattern
    assert str(pattern) == text


METADATA = {
    "the metadata service": ("169.254.169.254", True, True),
    "another address of that network": ("169.254.170.2", True, True),
    "the network": ("169.254.0.0/16", True, False),
    "the metadata service on IPv6": ("fd00:ec2::254", True, True),
    "a network around it": ("169.0.0.0/8", False, False),
    "a private address": ("10.0.0.1", False, True),
    "another unique local address": ("fd00:ec3::1", False, True),
}


@pytest.mark.parametrize(("text", "is_metadata", "is_literal"), METADATA.values(), ids=METADATA)
def test_metadata_addresses_are_known(text: str, is_metadata: bool, is_literal: bool) -> None:
    pattern = parse_pattern(text)
    assert isinstance(pattern, AddressPattern)
    assert (pattern.is_metadata, pattern.is_literal) == (is_metadata, is_literal)


@given(st.text(max_size=30) | st.text("*.ab1:/", max_size=12))
def test_any_text_is_a_pattern_in_normal_form_or_is_refused(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except AddressError:
        return
    assert str(pattern) == text
    assert contains(pattern, pattern)


NAMES = [".".join(labels) for length in (1, 2, 3, 4) for labels in product("ab", repeat=length)]
"""Every name of up to four labels over two: patterns of up to two labels are told apart by them."""


def _matched_names(pattern: Pattern) -> frozenset[str]:
    """What a name pattern matches among `NAMES`, by the words of the design."""
    assert isinstance(pattern, NamePattern)
    labels = pattern.name.split(".")
    found = set()
    for name in NAMES:
        front, back = name.split(".")[: -len(labels)], name.split(".")[-len(labels) :]
        if back == labels and (
            (pattern.depth is NameDepth.EXACT and not front)
            or (pattern.depth is NameDepth.ONE_LABEL and len(front) == 1)
            or (pattern.depth is NameDepth.ANY_DEPTH and front)
        ):
            found.add(name)
    return frozenset(found)


NAME_PATTERNS = [
    parse_pattern(f"{depth.value}{name}") for depth in NameDepth for name in NAMES if len(name) <= 3
]


def test_containment_of_names_is_that_of_what_they_match() -> None:
    for outer, inner in product(NAME_PATTERNS, repeat=2):
        assert contains(outer, inner) == (_matched_names(inner) <= _matched_names(outer)), (
            f"{outer} and {inner}"
        )


def test_two_name_patterns_are_nested_or_disjoint() -> None:
    for one, other in product(NAME_PATTERNS, repeat=2):
        assert (
            contains(one, other)
            or contains(other, one)
            or not _matched_names(one) & _matched_names(other)
        ), f"{one} and {other}"


CONTAINMENT = {
    "a network and its part": ("10.0.0.0/8", "10.1.0.0/16", True),
    "a network and an address in it": ("10.0.0.0/8", "10.1.2.3", True),
    "a network and itself": ("10.0.0.0/8", "10.0.0.0/8", True),
    "a part and its network": ("10.1.0.0/16", "10.0.0.0/8", False),
    "two networks apart": ("10.0.0.0/16", "10.1.0.0/16", False),
    "an IPv6 network and its part": ("2001:db8::/32", "2001:db8:1::/48", True),
    "IPv4 and IPv6": ("0.0.0.0/0", "::1", False),
    "IPv6 and IPv4": ("::/0", "10.0.0.1", False),
    "a network and a name": ("0.0.0.0/0", "a.b", False),
    "a name and an address": ("**.a", "10.0.0.1", False),
}


@pytest.mark.parametrize(("outer", "inner", "is_contained"), CONTAINMENT.values(), ids=CONTAINMENT)
def test_containment_of_networks(outer: str, inner: str, is_contained: bool) -> None:
    assert contains(parse_pattern(outer), parse_pattern(inner)) is is_contained
