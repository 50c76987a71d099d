"""The address table: who gets which address, and that nobody else ever gets it."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_side.shim.names.port_sets import PortSets
from enclave_side.shim.names.table import AddressTable, command_address, server_address
from tests.enclave_side.shim.names.files import BLOCK, port_sets_of

SMALL = IPv4Network("10.9.8.0/28")

TWO_SETS = (
    "address: a.test, port: 443",
    "address: '*.w.test', port: 443",
    "address: b.test, port: 80",
    "address: c.test, port: 443",
)


def address(text: str) -> IPv4Address:
    return IPv4Address(text)


def table_of(*rules: str, block: IPv4Network = BLOCK, most_names: int = 1000) -> AddressTable:
    return AddressTable(port_sets_of(rules, block=block), block, most_names)


def test_the_first_addresses_have_their_places() -> None:
    assert server_address(BLOCK) == address("198.18.0.1")
    assert command_address(BLOCK) == address("198.18.0.2")


def test_exact_names_are_numbered_in_file_order() -> None:
    table = table_of(*TWO_SETS)
    assert table.address_of("a.test") == address("198.18.0.3")
    assert table.address_of("c.test") == address("198.18.0.4")
    assert table.address_of("b.test") == address("198.19.0.0")
    assert table.address_of("x.w.test") is None
    assert len(table) == 3


def test_every_process_comes_to_the_same_table() -> None:
    one, other = table_of(*TWO_SETS), table_of(*TWO_SETS)
    names = ("a.test", "b.test", "c.test")
    assert [one.address_of(name) for name in names] == [other.address_of(name) for name in names]


def test_a_name_under_a_wildcard_is_numbered_behind_them() -> None:
    table = table_of(*TWO_SETS)
    assert table.number("x.w.test", 0) == address("198.18.0.5")
    assert table.number("y.w.test", 0) == address("198.18.0.6")
    assert table.number("x.w.test", 0) == address("198.18.0.5")
    assert table.name_of(address("198.18.0.6")) == "y.w.test"
    assert table.name_of(address("198.18.0.7")) is None


PARTS = {
    1: ("198.18.0.0/15",),
    2: ("198.18.0.0/16", "198.19.0.0/16"),
    3: ("198.18.0.0/17", "198.18.128.0/17", "198.19.0.0/17"),
    5: tuple(f"198.{18 + part // 4}.{part % 4 * 64}.0/18" for part in range(5)),
    16: tuple(f"198.{18 + part // 8}.{part % 8 * 32}.0/19" for part in range(16)),
}


@pytest.mark.parametrize(("sets", "parts"), PARTS.items(), ids=map(str, PARTS))
def test_the_block_is_split_into_equal_parts(sets: int, parts: tuple[str, ...]) -> None:
    table = table_of(*(f"address: n{port}.test, port: {port}" for port in range(1, sets + 1)))
    assert table.sub_blocks == tuple(map(IPv4Network, parts))
    for index, part in enumerate(table.sub_blocks):
        found = table.address_of(f"n{index + 1}.test")
        assert found is not None
        assert found in part


def test_without_any_name_there_is_no_part() -> None:
    table = table_of()
    assert (table.sub_blocks, len(table)) == ((), 0)
    assert table.name_of(address("198.18.0.3")) is None


def test_the_first_three_and_the_last_are_given_to_nobody() -> None:
    table = table_of("address: '*.test', port: 443", block=SMALL)
    given_out = [table.number(f"n{number}.test", 0) for number in range(14)]
    assert given_out == [*(SMALL[number] for number in range(3, 15)), None, None]
    assert table.number("n3.test", 0) == SMALL[6]


def test_one_part_used_up_leaves_the_others_alone() -> None:
    block = IPv4Network("10.9.8.0/27")
    table = table_of("address: '*.a.test', port: 1", "address: '*.b.test', port: 2", block=block)
    first = [table.number(f"n{number}.a.test", 0) for number in range(20)]
    assert [found for found in first if found] == [block[number] for number in range(3, 16)]
    assert table.number("n.b.test", 1) == block[16]


def test_exact_names_that_find_no_room_have_no_address() -> None:
    table = table_of(*(f"address: n{number}.test, port: 1" for number in range(20)), block=SMALL)
    assert table.address_of("n11.test") == SMALL[14]
    assert table.address_of("n12.test") is None
    assert table.number("n12.test", 0) is None


def test_the_number_of_names_is_bounded() -> None:
    table = table_of("address: '*.test', port: 1", most_names=10)
    given_out = [table.number(f"n{number}.test", 0) for number in range(11)]
    assert given_out[-2:] == [address("198.18.0.12"), None]


def test_a_mirror_learns_what_the_supervisor_numbered() -> None:
    supervisors, mirror = table_of(*TWO_SETS), table_of(*TWO_SETS)
    numbered = supervisors.number("x.w.test", 0)
    assert numbered is not None
    mirror.learn("x.w.test", numbered)
    mirror.learn("x.w.test", numbered)
    assert mirror.address_of("x.w.test") == numbered
    assert mirror.name_of(numbered) == "x.w.test"
    assert len(mirror) == 4


CONTRADICTIONS = {
    "an address beyond the block": ("x.w.test", "10.0.0.1", "no address for names"),
    "the server's own": ("x.w.test", "198.18.0.1", "no address for names"),
    "the last of the block": ("x.w.test", "198.19.255.255", "no address for names"),
    "another name's": ("x.w.test", "198.18.0.3", "belongs to a.test"),
    "a second one": ("a.test", "198.18.0.9", "a.test has 198.18.0.3"),
}


@pytest.mark.parametrize(("name", "text", "error"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_mirror_learns_nothing_that_contradicts_it(name: str, text: str, error: str) -> None:
    table = table_of(*TWO_SETS)
    with pytest.raises(ValueError, match=error):
        table.learn(name, address(text))
    assert table.name_of(address("198.18.0.3")) == "a.test"
    assert len(table) == 3


names = st.integers(0, 40).map("n{}.test".format)


@given(
    st.lists(st.tuples(names, st.integers(0, 2)), max_size=80),
    st.sampled_from(("10.9.8.0/26", "10.9.8.0/24")),
)
def test_no_address_is_given_twice_and_none_is_taken_back(
    asked: list[tuple[str, int]], block_text: str
) -> None:
    block = IPv4Network(block_text)
    port_sets = PortSets(((1,), (2,), (3,)), {}, {}, None, ())
    table = AddressTable(port_sets, block)
    owners: dict[IPv4Address, str] = {}
    for name, port_set in asked:
        known = table.address_of(name)
        found = table.number(name, port_set)
        assert known in (None, found)
        if found is None:
            continue
        assert owners.setdefault(found, name) == name
        assert table.name_of(found) == name
        assert known is not None or found in table.sub_blocks[port_set]
        assert block[3] <= found < block.broadcast_address
    assert len(table) == len(owners)


def test_ten_thousand_names_have_ten_thousand_addresses() -> None:
    table = AddressTable(port_sets_of(["address: '*.test', port: 443"]), BLOCK)
    found = {table.number(f"n{number}.test", 0) for number in range(10_000)}
    assert len(found - {None}) == 10_000
    assert table.address_of("n9999.test") == address("198.18.39.18")
