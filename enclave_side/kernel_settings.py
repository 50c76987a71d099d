"""Settings of the kernel (sysctl) for a machine with many connections, and those of the file."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
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
    settings: Mapping[str, str],
    command_network: AbstractContextManager[None] | None = None,
    *,
    folder: Path = _FOLDER,
) -> list[str]:
    """Set them, in this network namespace and in the command's; a line for each that could not be.

    Args:
        settings: names and values.
        command_network: within it, settings of the network are the command's; None if it has none
            of its own.
        folder: where the kernel has them.
    """
    left_out = [_apply(name, value, folder) for name, value in settings.items()]
    if command_network is not None:
        of_network = {name: value for name, value in settings.items() if is_of_network(name)}
        with command_network:
            inside = [_apply(name, value, folder) for name, value in of_network.items()]
        left_out += [f"{line}, for the command" for line in inside if line and line not in left_out]
    return _only_lines(left_out)


def _only_lines(lines: Sequence[str]) -> list[str]:
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
