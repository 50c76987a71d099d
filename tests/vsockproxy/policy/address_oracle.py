"""A second opinion on addresses, written otherwise than the guard: intervals of text groups.

`may_be_dialled` says what a rule without flags, and with `private: true`, may lead to.
"""

from ipaddress import IPv4Address, IPv6Address

from vsockproxy.addresses import IpAddress

# First and last address of every block that is not public; all else is.
PRIVATE_IPV4 = (
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.168.0.0", "192.168.255.255"),
)
OTHER_IPV4 = (
    ("0.0.0.0", "0.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "255.255.255.255"),
)


def may_be_dialled(address: IpAddress, private: bool = False) -> bool:
    if isinstance(address, IPv4Address):
        return _ipv4(str(address), private)
    groups = address.exploded.split(":")
    numbers = [int(group, 16) for group in groups]
    last = _dotted(groups[6:])
    if groups[:6] == ["0000"] * 5 + ["ffff"] or groups[:6] == ["0064", "ff9b"] + ["0000"] * 4:
        return _ipv4(last, private)
    if groups[:3] == ["0064", "ff9b", "0001"]:
        return _local_nat64("".join(groups), private)
    if groups[:2] == ["2001", "0000"]:
        client = _dotted([f"{0xFFFF - number:04x}" for number in numbers[6:]])
        return _ipv4(_dotted(groups[2:4]), private) and _ipv4(client, private)
    if groups[5] == "5efe" and groups[4] in ("0000", "0200") and not _ipv4(last, private):
        return False
    if groups[0] == "2002":
        return _ipv4(_dotted(groups[1:3]), private)
    if address == IPv6Address("::1"):
        return private
    if groups[0][:2] in ("fc", "fd"):
        return private and groups[:2] != ["fd00", "0ec2"]
    if groups[0][0] not in "23":
        return False
    is_protocol_assignment = groups[0] == "2001" and numbers[1] < 0x0200
    is_documentation = groups[:2] == ["2001", "0db8"] or (groups[0] == "3fff" and numbers[1] < 4096)
    return not is_protocol_assignment and not is_documentation


def _ipv4(text: str, private: bool) -> bool:
    value = tuple(map(int, text.split(".")))
    for closed in (OTHER_IPV4,) if private else (OTHER_IPV4, PRIVATE_IPV4):
        for first, last in closed:
            if tuple(map(int, first.split("."))) <= value <= tuple(map(int, last.split("."))):
                return False
    return True


def _dotted(groups: list[str]) -> str:
    digits = "".join(groups)
    return ".".join(str(int(digits[place : place + 2], 16)) for place in range(0, 8, 2))


def _local_nat64(digits: str, private: bool) -> bool:
    """Each layout of RFC 6052, section 2.2, in a string of 32 digits; octet 8 is always skipped."""
    without_octet_8 = digits[:16] + digits[18:]
    layouts = [
        _dotted([digits[24:32]]),
        *(_dotted([without_octet_8[place : place + 8]]) for place in (12, 14, 16)),
    ]
    meant = [layout for layout in layouts if not layout.startswith("0.")]
    return bool(meant) and all(_ipv4(layout, private) for layout in meant)
