"""The types that fields of both configuration files are made of."""

from typing import Annotated, Literal

import msgspec

__all__ = (
    "MAX_SOCKET_PATH",
    "AbsolutePath",
    "AccountId",
    "AlpnNames",
    "AtOnce",
    "ContactUrl",
    "ContextId",
    "FilePath",
    "HostName",
    "HttpsUrl",
    "InstanceId",
    "Mode",
    "Name",
    "NsmDevice",
    "PcrIndex",
    "PcrValue",
    "PerSecond",
    "Port",
    "PortRange",
    "Ports",
    "PositiveSeconds",
    "ProxyProtocol",
    "RegionName",
    "Seconds",
    "SettingName",
    "SocketPath",
    "SpkiPin",
    "UserNumber",
    "VariableName",
    "Word",
)

MAX_SOCKET_PATH = 107
"""sun_path of sockaddr_un has 108 bytes, one of them the closing NUL (unix(7))."""

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
PortRange = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{1,5}-[0-9]{1,5}$", description="a range, as 6432-6440")
]
Ports = Annotated[list[Port | PortRange], msgspec.Meta(min_length=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
ContextId = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFE)]
Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="a name of up to 64 letters, digits, '_', '.' and '-'",
    ),
]
InstanceId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^i-[0-9a-f]{1,32}(?![\s\S])",
        description="the id of an instance, as i-0123456789abcdef0",
    ),
]
PcrIndex = Annotated[
    str,  # the keys of a mapping are text
    msgspec.Meta(
        pattern=r"^([0-9]|[12][0-9]|3[01])(?![\s\S])",
        description="the number of a PCR within 0-31",
    ),
]
PcrValue = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9A-Fa-f]{96}(?![\s\S])",
        description="a PCR as 96 hexadecimal digits (SHA-384)",
    ),
]
SocketPath = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^/[!-~]*[!-.0-~](?![\s\S])",  # where Python's $ would let a line break pass
        max_length=MAX_SOCKET_PATH,
        description="the absolute path of a socket, at most 107 characters without spaces",
    ),
]
FilePath = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^/[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f/](?![\s\S])",
        max_length=4095,  # PATH_MAX of linux/limits.h counts the closing NUL
        description="the absolute path of a file",
    ),
]
SpkiPin = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9+/]{43}=(?![\s\S])",
        description="the base64 SHA-256 of a public key, 44 characters",
    ),
]
AlpnName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9._/+-]{1,32}(?![\s\S])",
        description="a protocol's name in ALPN, as h2 or http/1.1",
    ),
]
AlpnNames = Annotated[list[AlpnName], msgspec.Meta(max_length=8)]
"""Protocols, the best first (RFC 7301)."""
PerSecond = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
"""How often something may happen in one second; 0.5 is every two seconds."""
AtOnce = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
UserNumber = Annotated[
    int,
    msgspec.Meta(
        ge=0,
        le=0xFFFF_FFFE,  # the last one means "no user" (setresuid(2))
        description="a user's number within 0-4294967294",
    ),
]
Mode = Literal["enforce", "report"]
HostName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?![\s\S])",
        description="a host name of up to 63 letters, digits and '-'",  # __NEW_UTS_LEN is 64
    ),
]
RegionName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}(?![\s\S])",
        description="a region's name, as eu-west-1",
    ),
]
AccountId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{12}(?![\s\S])",
        description='the 12 digits of an AWS account, as "111122223333"',
    ),
]
ProxyProtocol = Literal["none", "v2"]
NsmDevice = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(software|/[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f/])(?![\s\S])",
        max_length=4095,  # as of a file
        description="the absolute path of a device, or `software`",
    ),
]
AbsolutePath = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^/[^\x00]*(?![\s\S])",
        max_length=4095,  # PATH_MAX of include/uapi/linux/limits.h counts the closing NUL
        description="an absolute path",
    ),
]
Word = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^\x00]*(?![\s\S])",  # exec takes texts that end with a NUL
        description="text without NUL",
    ),
]
VariableName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^=\x00]+(?![\s\S])",
        description="the name of an environment variable",
    ),
]
HttpsUrl = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^https://[!-~]+(?![\s\S])",
        max_length=2000,
        description="a URL that begins with https://",
    ),
]
ContactUrl = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^mailto:[!-~]+@[!-~]+(?![\s\S])",
        max_length=320,
        description="an address as mailto:ops@example.com",
    ),
]
SettingName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)+(?![\s\S])",
        max_length=200,
        description="a setting of the kernel, as net.core.somaxconn",
    ),
]
