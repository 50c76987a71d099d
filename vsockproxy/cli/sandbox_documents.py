"""The configuration of both sides of a sandbox: what the files say, and `--allow`. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import msgspec

from vsockproxy.addresses import (
    AddressError,
    Destination,
    UnixAddress,
    VsockAddress,
    parse_destination,
)
from vsockproxy.config.document import Document
from vsockproxy.config.model import (
    FIRST_ENCLAVE_CID,
    AllowRule,
    EnclaveConfig,
    ParentConfig,
)
from vsockproxy.config.patterns import parse_pattern
from vsockproxy.log_lines import Level, passes

__all__ = ("AllowOption", "enclave_document", "left_out_forwards", "link_cid", "parent_document")

ORIGIN: Final = "--allow"
"""What logs name as the file of rules that no file has."""

QUIET_LEVEL: Final[Level] = "warning"
"""Shows refusals, and leaves the terminal to the command otherwise."""

_HIGHEST_PORT: Final = 65_535

_Config = TypeVar("_Config", ParentConfig, EnclaveConfig)


@dataclass(frozen=True, slots=True)
class AllowOption:
    """What `--allow HOST:PORT[=ADDR:PORT]` says; HOST may be a pattern."""

    address: str
    port: int
    dial: Destination | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the option's value.

        Raises:
            AddressError: it is none.
        """
        if "://" in text:
            raise AddressError(f"{text!r} is a URL", "write HOST:PORT")
        listed, separator, dialled = text.partition("=")
        host, colon, port_text = listed.rpartition(":")
        if not colon or not host:
            raise AddressError(f"{listed!r} has no port", "write HOST:PORT")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise AddressError(f"{listed!r} has no brackets", f"write [{host}]:{port_text}")
        if not re.fullmatch(r"[0-9]{1,5}", port_text, re.ASCII) or not (
            1 <= int(port_text) <= _HIGHEST_PORT
        ):
            raise AddressError(f"{port_text!r} is no port", f"write a number in 1-{_HIGHEST_PORT}")
        dial = parse_destination(dialled) if separator else None
        return cls(str(parse_pattern(host)), int(port_text), dial)

    def rule(self, *, with_dial: bool) -> AllowRule:
        """The rule that it stands for; only the parent dials, so only its rule says where."""
        dial = self.dial if with_dial else None
        return AllowRule(address=self.address, port=self.port, private=True, dial=dial)


def enclave_document(
    file: Document | None, allow: Sequence[AllowOption], link: UnixAddress, *, is_verbose: bool
) -> Document:
    """The enclave's configuration, with its parent at `link`."""
    rules = [option.rule(with_dial=False) for option in allow]
    parent = UnixAddress(link.path)
    if file is None:
        made = EnclaveConfig(parent=parent, allowlist=rules)
        return Document(_quieten(made, is_verbose=is_verbose), ORIGIN, {})
    assert isinstance(file.config, EnclaveConfig)
    allowlist = [*rules, *file.config.allowlist]
    config = msgspec.structs.replace(file.config, parent=parent, allowlist=allowlist)
    lines = {_shift(path, "", len(rules)): line for path, line in file.lines.items()}
    return Document(_quieten(config, is_verbose=is_verbose), file.file, lines)


def parent_document(
    file: Document | None, allow: Sequence[AllowOption], link: UnixAddress, *, is_verbose: bool
) -> Document:
    """The parent's configuration, listening at `link` only, where the peer has the link's CID."""
    rules = [option.rule(with_dial=True) for option in allow]
    if file is None:
        made = ParentConfig(listen=[link], allowlist=rules)
        return Document(_quieten(made, is_verbose=is_verbose), ORIGIN, {})
    config = file.config
    assert isinstance(config, ParentConfig)
    lines = dict(file.lines)
    enclaves = list(config.enclaves)
    for index, entry in enumerate(enclaves):
        if entry.could_be_for(link.cid):  # its list replaces the file's
            enclaves[index] = msgspec.structs.replace(entry, allowlist=[*rules, *entry.allowlist])
            prefix = f"enclaves[{index}]."
            lines = {_shift(path, prefix, len(rules)): line for path, line in lines.items()}
    left_out = left_out_forwards(file)
    config = msgspec.structs.replace(
        config,
        listen=[link],
        allowlist=[*rules, *config.allowlist],
        enclaves=enclaves,
        forwards=[each for index, each in enumerate(config.forwards) if index not in left_out],
    )
    lines = {_shift(path, "", len(rules)): line for path, line in lines.items()}
    return Document(_quieten(config, is_verbose=is_verbose), file.file, lines)


def left_out_forwards(file: Document) -> tuple[int, ...]:
    """Which forwards of a parent's file a sandbox leaves out: those on vsock, which it lacks."""
    config = file.config
    forwards = config.forwards if isinstance(config, ParentConfig) else []
    return tuple(
        index for index, each in enumerate(forwards) if isinstance(each.listen, VsockAddress)
    )


def link_cid(file: Document | None) -> int:
    """The CID that a sandbox has as an enclave: the first that `listen` names, or 4.

    So it is that of a parent that listens on that unix socket.
    """
    config = file.config if file is not None else None
    endpoints = config.listen if isinstance(config, ParentConfig) else []
    named = [each.cid for each in endpoints if isinstance(each, UnixAddress)]
    return next((cid for cid in named if cid is not None), FIRST_ENCLAVE_CID)


def _quieten(config: _Config, *, is_verbose: bool) -> _Config:
    if is_verbose or passes(config.log.level, QUIET_LEVEL):
        return config
    return msgspec.structs.replace(
        config, log=msgspec.structs.replace(config.log, level=QUIET_LEVEL)
    )


def _shift(path: str, prefix: str, by: int) -> str:
    """The path of a rule after `by` rules were put in front of it.

    They stand in front because the first rule that covers a destination decides.
    """
    found = re.fullmatch(rf"{re.escape(prefix)}allowlist\[([0-9]+)\](.*)", path)
    return f"{prefix}allowlist[{int(found[1]) + by}]{found[2]}" if found else path
