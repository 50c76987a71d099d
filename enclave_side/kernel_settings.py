"""Settings of the kernel (sysctl) for a machine with many connections, and those of the file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ("FOR_MANY_CONNECTIONS", "apply_settings", "is_of_network", "wanted_settings")

FOR_MANY_CONNECTIONS: Final[Mapping[str, str]] = {
    # One source address has as many connections to one destination as it has ports, and each port
    # rests for a minute after its connection's end.
    "net.ipv4.ip_local_port_range": "10240 65535",
    "net.ipv4.tcp_tw_reuse": "1",
    # What listen(2) asks for is cut to this; 128 before Linux 5.4.
    "net.core.somaxconn": "4096",
}
"""What is set unless the file says otherwise (Documentation/networking/ip-sysctl.rst)."""

_FOLDER: Final = Path("/proc/sys")


def wanted_settings(written: Mapping[str, int | str]) -> dict[str, str]:
    """All settings with their values, those that were `written` in the file last."""
    kept = {name: value for name, value in FOR_MANY_CONNECTIONS.items() if name not in written}
    return kept | {name: str(value) for name, value in written.items()}


def is_of_network(name: str) -> bool:
    """Whether each network namespace has a setting of its own by that name; most of net.* are."""
    return name.startswith("net.")


def apply_settings(
    settings: Mapping[str, str], *, of_network_only: bool = False, folder: Path = _FOLDER
) -> list[str]:
    """Set them where we are; a line for each that could not be set.

    Args:
        settings: names and values.
        of_network_only: whether only those are set that a network namespace has of its own.
        folder: where the kernel has them.
    """
    lines = []
    for name, value in settings.items():
        if is_of_network(name) or not of_network_only:
            lines.append(_apply(name, value, folder))
    return [line for line in lines if line]


def _apply(name: str, value: str, folder: Path) -> str:
    """Set one; the line that says why not, or nothing."""
    path = folder.joinpath(*name.split("."))
    try:
        # What is not there is not made: /proc/sys would say that this is not permitted.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"machine.sysctls: {name} is not {value}: {error.strerror}"
    return ""
