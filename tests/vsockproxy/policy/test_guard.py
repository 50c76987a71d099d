from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vsockproxy.policy.address_oracle import may_be_dialled
from tests.vsockproxy.policy.strategies import ip_addresses
from vsockproxy.addresses import IpAddress
from vsockproxy.policy.embedded import embedded_ipv4
from vsockproxy.policy.guard import closed, closed_class, findings
from vsockproxy.policy.reasons import Reason


@given(ip_addresses)
def test_what_the_guard_passes_is_what_the_oracle_passes(address: IpAddress) -> None:
    assert (not closed(address, private=False, metadata=False)) == may_be_dialled(address)


@given(ip_addresses)
def test_private_opens_what_the_oracle_opens(address: IpAddress) -> None:
    passes = not closed(address, private=True, metadata=False)
    assert passes == may_be_dialled(address, private=True)


@given(ip_addresses)
def test_a_flag_never_closes_an_address(address: IpAddress) -> None:
    for metadata in (False, True):
        without = closed(address, private=False, metadata=metadata)
        assert set(closed(address, private=True, metadata=metadata)) <= set(without)


@given(ip_addresses)
def test_all_flags_together_leave_reserved_and_ipv6_link_local_closed(address: IpAddress) -> None:
    for finding in closed(address, private=True, metadata=True):
        is_link_local = finding.address in ip_network("fe80::/10")
        assert finding.reason is (
            Reason.ADDRESS_METADATA if is_link_local else Reason.ADDRESS_RESERVED
        )


@given(ip_addresses, st.integers(0, 128), st.booleans())
def test_the_class_of_a_network_is_that_of_every_address_in_it(
    address: IpAddress, length: int, private: bool
) -> None:
    network = ip_network((address, min(length, address.max_prefixlen)), strict=False)
    found = closed_class(network, private=private)
    for each in (address, network[0], network[-1]):
        if found is not None:
            assert findings(each)[0].address_class is found
            assert closed(each, private=private, metadata=False)
    if network.num_addresses == 1:
        own = findings(address)[0]
        assert (found is None) == (own not in closed(address, private=private, metadata=False))


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        pytest.param("::ffff:10.1.2.3", ["10.1.2.3"], id="mapped"),
        pytest.param("::ffff:0:a01:203", ["10.1.2.3"], id="IPv4-translated"),
        pytest.param("::10.1.2.3", ["10.1.2.3"], id="IPv4-compatible"),
        pytest.param("64:ff9b::a01:203", ["10.1.2.3"], id="NAT64 with the well-known prefix"),
        pytest.param("64:ff9b:1::a01:203", ["10.1.2.3"], id="local NAT64 with a prefix of 96 bits"),
        pytest.param(
            "64:ff9b:1:a01:2:300::",
            ["10.1.2.3", "1.2.3.0", "2.3.0.0"],
            id="local NAT64 with a prefix of 48 bits, and the other readings of the same bits",
        ),
        pytest.param(
            "64:ff9b:1:a:1:203::",
            ["10.1.2.3", "1.2.3.0"],
            id="local NAT64 with a prefix of 56 bits",
        ),
        pytest.param("64:ff9b:1:0:a:102:300::", ["3.0.0.0", "10.1.2.3"], id="of 64 bits"),
        pytest.param("64:ff9b:1::", ["0.0.0.0"], id="local NAT64 of nothing"),
        pytest.param("2002:a01:203::1", ["10.1.2.3"], id="6to4"),
        pytest.param(
            "2001:0:5300:1::f5fe:fdfc", ["83.0.0.1", "10.1.2.3"], id="Teredo, server and client"
        ),
        pytest.param("fe80::5efe:a01:203", ["10.1.2.3"], id="ISATAP"),
        pytest.param("2600::200:5efe:a01:203", ["10.1.2.3"], id="ISATAP, with the universal bit"),
        pytest.param(
            "2002:808:808::5efe:a01:203", ["8.8.8.8", "10.1.2.3"], id="ISATAP behind 6to4"
        ),
        pytest.param("::", [], id="unspecified is not IPv4-compatible"),
        pytest.param("::1", [], id="loopback is not IPv4-compatible"),
        pytest.param("2600::1", [], id="a plain IPv6 address"),
        pytest.param("10.1.2.3", [], id="an IPv4 address"),
    ],
)
def test_ipv4_inside(address: str, inside: list[str]) -> None:
    assert [str(part) for part in embedded_ipv4(ip_address(address))] == inside


def test_the_metadata_inside_gives_the_reason_although_the_form_is_reserved() -> None:
    shut = closed(ip_address("::169.254.169.254"), private=False, metadata=False)
    assert [finding.reason for finding in shut] == [
        Reason.ADDRESS_METADATA,
        Reason.ADDRESS_RESERVED,
    ]


def test_findings_name_the_address_itself_first() -> None:
    address = IPv6Address("2001:0:5300:1::f5fe:fdfc")
    assert [str(finding.address) for finding in findings(address)] == [
        str(address),
        "83.0.0.1",
        "10.1.2.3",
    ]
