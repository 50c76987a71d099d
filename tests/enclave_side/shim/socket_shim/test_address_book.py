"""Addresses for names: always the same, never shared, in every process alike."""

import threading
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from enclave_side.shim.socket_shim.address_book import BLOCK, AddressBook

SMALL = IPv4Network("198.18.0.0/28")
SMALL_ROOM = 16 - 4
NAMES = st.lists(st.text("abc.", min_size=1, max_size=6), unique=True, max_size=40)


@given(NAMES)
def test_no_address_is_shared_and_each_leads_back(names: list[str]) -> None:
    book = AddressBook(SMALL)
    given_out = {name: book.address_of(name) for name in names}
    addresses = [address for address in given_out.values() if address is not None]
    assert len(addresses) == len(set(addresses)) == min(len(names), SMALL_ROOM)
    for name, address in given_out.items():
        assert book.address_of(name) == address
        if address is not None:
            assert book.name_of(address) == name
            number = int(IPv4Address(address)) - int(SMALL[0])
            assert 3 <= number <= 14


def test_another_process_gives_a_name_the_same_address() -> None:
    one, other = AddressBook(), AddressBook()
    for name in ("first.test", "second.test"):
        one.address_of(name)
    assert other.address_of("second.test") == one.address_of("second.test")
    assert IPv4Address(str(one.address_of("second.test"))) in BLOCK


def test_an_address_that_nobody_was_given_is_nobodys() -> None:
    assert AddressBook().name_of("198.18.0.9") is None


def test_threads_that_ask_at_once_are_told_the_same() -> None:
    book = AddressBook(SMALL)
    names = [f"{number}.test" for number in range(SMALL_ROOM)]
    start = threading.Barrier(8)
    told: list[list[str | None]] = []

    def ask() -> None:
        start.wait(10)
        told.append([book.address_of(name) for name in names])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert told == [told[0]] * 8
    assert len(set(told[0])) == SMALL_ROOM
