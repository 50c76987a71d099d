"""Hypothesis strategies for addresses that lie where guards go wrong."""

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import strategies as st

from tests.vsockproxy.policy.address_oracle import OTHER_IPV4, PRIVATE_IPV4
from vsockproxy.addresses import IpAddress

_BOUNDS = [int(IPv4Address(text)) for block in OTHER_IPV4 + PRIVATE_IPV4 for text in block]

ipv4_numbers = st.one_of(
    st.integers(0, 2**32 - 1),
    st.builds(
        lambda bound, step: (bound + step) % 2**32, st.sampled_from(_BOUNDS), st.integers(-2, 2)
    ),
)

_IPV6_BLOCKS = [
    ip_network(text)
    for text in (
        "::/0",
        "::/96",
        "::ffff:0:0:0/96",
        "100::/64",
        "2000::/3",
        "2001::/23",
        "2001:0200::/23",
        "2001:2::/48",
        "2001:db8::/32",
        "2002::/16",
        "2600:1f00::/24",
        "3ffe::/15",
        "3fff::/20",
        "5f00::/16",
        "64:ff9b::/32",
        "64:ff9b:1::/48",
        "fc00::/7",
        "fd00:ec2::/32",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
]


@st.composite
def _in_block(draw: st.DrawFn) -> int:
    block = draw(st.sampled_from(_IPV6_BLOCKS))
    size = block.num_addresses
    low = int(block.network_address)
    offset = draw(st.one_of(st.integers(-2, 2), st.integers(0, size - 1), st.just(size)))
    return (low + offset) % 2**128


@st.composite
def _wrapped(draw: st.DrawFn) -> int:
    """An IPv4 address in one of the forms that carry one; the rest is noise or zeros."""
    inside = draw(ipv4_numbers)
    shift, prefix = draw(
        st.sampled_from(
            (
                (0, "::"),
                (0, "::ffff:0:0"),
                (0, "::ffff:0:0:0"),
                (0, "64:ff9b::"),
                (0, "64:ff9b:1::"),
                (80, "2002::"),
                (64, "2001::"),
                (0, "2600:1f00::5efe:0:0"),
                (0, "2600:1f00::200:5efe:0:0"),
                (0, "fe80::5efe:0:0"),
            )
        )
    )
    noise = draw(st.sampled_from((0, 0x0808_0808, 0xF7F7_F7F7, 0x0A00_0001)))
    value = int(IPv6Address(prefix)) | inside << shift
    return value | noise if shift else value


ip_addresses: st.SearchStrategy[IpAddress] = st.one_of(
    ipv4_numbers.map(IPv4Address),
    st.one_of(_in_block(), _wrapped()).map(IPv6Address),
)
