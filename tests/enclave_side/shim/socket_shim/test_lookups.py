"""Lookups under the shim, beside what the C library answers in a sandbox with names."""

import socket
from typing import Any

import pytest

from enclave_side.shim.socket_shim.address_book import BLOCK, AddressBook
from tests.enclave_side.shim.socket_shim.rig import LITERAL_V4, PORT
from tests.support.shimmed import Agent

INET, INET6 = int(socket.AF_INET), int(socket.AF_INET6)
STREAM, DGRAM, RAW = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM), int(socket.SOCK_RAW)
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP

NAME = "echo.test"
ADDRESS = str(AddressBook().address_of(NAME))
MAPPED = f"::ffff:{ADDRESS}"

V4 = [ADDRESS, PORT]
TCP_ONLY = [[INET, STREAM, TCP, "", V4]]
TCP_AND_UDP = [*TCP_ONLY, [INET, DGRAM, UDP, "", V4]]
EVERYTHING = [*TCP_AND_UDP, [INET, RAW, 0, "", V4]]
AS_V6 = [[INET6, STREAM, TCP, "", [MAPPED, PORT, 0, 0]]]

V4MAPPED, ALL = int(socket.AI_V4MAPPED), int(socket.AI_ALL)
BAD_FLAG = 0x10000

GETADDRINFO: dict[str, tuple[tuple[Any, ...], Any]] = {
    "any type": ((NAME, PORT), EVERYTHING),
    "TCP": ((NAME, PORT, 0, STREAM), TCP_ONLY),
    "a service by its name": ((NAME, "https", INET), TCP_AND_UDP),
    "a service as a number in a text": ((NAME, "443", 0, STREAM), TCP_ONLY),
    "no port": ((NAME, None, 0, STREAM), [[INET, STREAM, TCP, "", [ADDRESS, 0]]]),
    "a port beyond all": ((NAME, 70_000, 0, STREAM), [[INET, STREAM, TCP, "", [ADDRESS, 4464]]]),
    "in capital letters, with a dot": ((f"{NAME.upper()}.", PORT, 0, STREAM), TCP_ONLY),
    "its canonical name": (
        (f"{NAME.upper()}.", PORT, 0, STREAM, 0, int(socket.AI_CANONNAME)),
        [[INET, STREAM, TCP, NAME.upper(), V4]],
    ),
    "for a listener": ((NAME, PORT, 0, STREAM, 0, int(socket.AI_PASSIVE)), TCP_ONLY),
    "of configured families": ((NAME, PORT, 0, STREAM, 0, int(socket.AI_ADDRCONFIG)), TCP_ONLY),
    "IPv6": ((NAME, PORT, INET6), "EAI_NODATA"),
    "IPv6, mapped": ((NAME, PORT, INET6, STREAM, 0, V4MAPPED), AS_V6),
    "IPv6, all and mapped": ((NAME, PORT, INET6, STREAM, 0, V4MAPPED | ALL), AS_V6),
    "no number": ((NAME, PORT, 0, 0, 0, int(socket.AI_NUMERICHOST)), "EAI_NONAME"),
    "a service that is none": ((NAME, "no-such-service", INET), "EAI_SERVICE"),
    "a service that is no number": ((NAME, "https", 0, 0, 0, socket.AI_NUMERICSERV), "EAI_NONAME"),
    "a type that is none": ((NAME, PORT, INET, 77), "EAI_SOCKTYPE"),
    "a protocol of another type": ((NAME, PORT, INET, STREAM, UDP), "EAI_SOCKTYPE"),
    "a family that is none": ((NAME, PORT, 77), "EAI_FAMILY"),
    "flags that are none": ((NAME, PORT, 0, 0, 0, BAD_FLAG), "EAI_BADFLAGS"),
    "a name that is not listed": (("unlisted.test", PORT), "EAI_NONAME"),
    "not listed, and IPv6": (("unlisted.test", PORT, INET6), "EAI_NONAME"),
    "not listed, and a service that is none": (("unlisted.test", "none"), "EAI_SERVICE"),
    "a name that does not exist": (("missing.test", PORT), "EAI_NONAME"),
    "a lookup that fails": (("unanswered.test", PORT), "EAI_AGAIN"),
    "a literal": (
        ("192.0.2.1", PORT, 0, STREAM),
        [[INET, STREAM, TCP, "", ["192.0.2.1", PORT]]],
    ),
    "a literal with a canonical name": (
        ("192.0.2.1", PORT, 0, STREAM, 0, int(socket.AI_CANONNAME)),
        [[INET, STREAM, TCP, "192.0.2.1", ["192.0.2.1", PORT]]],
    ),
    "a literal of another family": (("192.0.2.1", PORT, INET6), "EAI_ADDRFAMILY"),
    "a literal, mapped": (
        ("192.0.2.1", PORT, INET6, STREAM, 0, V4MAPPED),
        [[INET6, STREAM, TCP, "", ["::ffff:192.0.2.1", PORT, 0, 0]]],
    ),
    "nobody, for a listener": (
        (None, PORT, INET, STREAM, 0, int(socket.AI_PASSIVE)),
        [[INET, STREAM, TCP, "", ["0.0.0.0", PORT]]],
    ),
    "nobody": ((None, PORT, INET, STREAM), [[INET, STREAM, TCP, "", ["127.0.0.1", PORT]]]),
    "nobody and nothing": ((None, None), "EAI_NONAME"),
    "this machine": (
        ("localhost", PORT, INET, STREAM),
        [[INET, STREAM, TCP, "", ["127.0.0.1", PORT]]],
    ),
    "below this machine": (
        ("a.localhost", PORT, INET, STREAM),
        [[INET, STREAM, TCP, "", ["127.0.0.1", PORT]]],
    ),
    "nothing": (("", PORT), "EAI_NONAME"),
    "a space": (("a b", PORT), "EAI_NONAME"),
    "a letter beyond ASCII": (("ü.test", PORT), "EAI_NONAME"),
    "a label that is too long": ((f"{'a' * 64}.test", PORT), "UnicodeError"),
}
"""Arguments, and the answer."""


@pytest.mark.parametrize("case", GETADDRINFO)
def test_getaddrinfo(agent: Agent, case: str) -> None:
    arguments, expected = GETADDRINFO[case]
    assert agent.ask("call", "getaddrinfo", *arguments) == expected


OTHERS: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "a name": ("gethostbyname", (NAME,), ADDRESS),
    "a name that is not listed": ("gethostbyname", ("unlisted.test",), "EAI_NONAME"),
    "a literal": ("gethostbyname", ("192.0.2.1",), "192.0.2.1"),
    "a literal of IPv6": ("gethostbyname", ("::1",), "EAI_ADDRFAMILY"),
    "nothing": ("gethostbyname", ("",), "0.0.0.0"),
    "everybody": ("gethostbyname", ("<broadcast>",), "255.255.255.255"),
    "this machine": ("gethostbyname", ("localhost",), "127.0.0.1"),
    "no text": ("gethostbyname", (7,), "TypeError"),
    "a name, with aliases": ("gethostbyname_ex", (NAME,), [NAME, [], [ADDRESS]]),
    "not listed, with aliases": ("gethostbyname_ex", ("unlisted.test",), "EAI_NONAME"),
    "a literal, with aliases": (
        "gethostbyname_ex",
        ("192.0.2.1",),
        ["192.0.2.1", [], ["192.0.2.1"]],
    ),
    "the name of an address": ("gethostbyaddr", (ADDRESS,), [NAME, [], [ADDRESS]]),
    "the name of a mapped address": ("gethostbyaddr", (MAPPED,), [NAME, [], [MAPPED]]),
    "the name of a name": ("gethostbyaddr", (NAME,), [NAME, [], [ADDRESS]]),
    "the name of somebody's address": ("gethostbyaddr", ("192.0.2.1",), "herror 1"),
    "the name of somebody's IPv6": ("gethostbyaddr", ("2001:db8::1",), "herror 1"),
    "name and service": ("getnameinfo", ([ADDRESS, PORT], 0), [NAME, "https"]),
    "name and service, mapped": ("getnameinfo", ([MAPPED, PORT], 0), [NAME, "https"]),
    "numbers": (
        "getnameinfo",
        ([ADDRESS, PORT], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
        [ADDRESS, "443"],
    ),
    "somebody's, and service": ("getnameinfo", (["192.0.2.1", PORT], 0), ["192.0.2.1", "https"]),
    "somebody's name, if there is one": (
        "getnameinfo",
        (["192.0.2.1", PORT], socket.NI_NAMEREQD),
        "EAI_NONAME",
    ),
    "the name of what is no address": ("getnameinfo", ([NAME, PORT], 0), "EAI_NONAME"),
    "the full name of a name": ("getfqdn", (NAME,), NAME),
    "the full name of this machine's": ("getfqdn", ("localhost",), "localhost"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_lookups(agent: Agent, case: str) -> None:
    function, arguments, expected = OTHERS[case]
    agent.ask("call", "gethostbyname", NAME)  # it knows whose an address is that it gave
    assert agent.ask("call", function, *arguments) == expected


def test_an_address_of_the_block_that_nobody_was_given_is_a_literal(agent: Agent) -> None:
    stranger = AddressBook().address_of("never-asked-for.test")
    assert agent.ask("see", "blocking", stranger, PORT) == "EACCES"
    assert agent.ask("see", "blocking", str(BLOCK[1]), PORT) == "EACCES"


def test_an_address_leads_to_its_name(agent: Agent) -> None:
    address = agent.ask("call", "gethostbyname", NAME)
    assert agent.ask("exchange", address, PORT, "word") == "word"
    assert agent.ask("exchange", LITERAL_V4, PORT, "word") == "word"
