"""From a configuration file to the rules and settings that hold for one enclave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Final, Literal

from vsockproxy.config.document import Document
from vsockproxy.config.field_types import Mode
from vsockproxy.config.model import (
    FIRST_ENCLAVE_CID,
    AllowRule,
    AwsAllowlist,
    AwsRule,
    DenyRule,
    EnclaveConfig,
    ParentConfig,
)
from vsockproxy.config.patterns import parse_pattern
from vsockproxy.config.ports import PortSpan, rule_ports
from vsockproxy.policy.rules import Rule

__all__ = ("Lists", "lists_for", "may_connect")

ALLOW_OPTION: Final = "--allow"
"""The `file` of a document that has no file: its rules come from this option of the sandbox."""


@dataclass(frozen=True, slots=True)
class Lists:
    """What one file says for one enclave.

    Args:
        allow: the allow rules in file order.
        deny: the deny rules in file order.
        allowlist_name: where an allow rule would be added, for people.
        rules_have_flags: whether rules can say `private` and `metadata`; AWS's cannot.
        mode: `report` lets pass what is not listed.
        mixed: whether one forbidden address refuses a name, or is dropped from the answer.
        require_tls: what holds for rules that do not say.
        lacks_attestation: nothing is allowed, because the file has entries for other measurements
            than those that were attested, if any were.
    """

    allow: tuple[Rule, ...]
    deny: tuple[Rule, ...]
    allowlist_name: str
    rules_have_flags: bool = True
    mode: Mode = "enforce"
    mixed: Literal["refuse", "drop"] = "refuse"
    require_tls: bool = False
    lacks_attestation: bool = False


def may_connect(document: Document, cid: int) -> bool:
    """Whether a peer with `cid` may have a session: CIDs 0-3 need an entry under `enclaves`."""
    config = document.config
    if isinstance(config, ParentConfig):
        return cid >= FIRST_ENCLAVE_CID or any(entry.could_be_for(cid) for entry in config.enclaves)
    return isinstance(config, AwsAllowlist)  # AWS's proxy takes any CID; an enclave takes none


def lists_for(
    document: Document, cid: int | None, pcrs: Mapping[int, bytes] | None = None
) -> Lists:
    """The lists of `document`; on the parent, those for one enclave, if something of it is known.

    An `enclaves` entry replaces the file's allowlist and adds to its denylist. A CID that
    `may_connect` refuses has nothing allowed, whatever the mode, and so has one that would have to
    attest other measurements. `dial` holds on the parent only.

    Args:
        document: a file.
        cid: the enclave's CID, if it is known.
        pcrs: what it has attested, if anything.

    Raises:
        AddressError: a rule's address is no pattern; `load` does not let such a file pass.
    """
    config = document.config
    file = PurePath(document.file).name or document.file
    allowlist_name = ALLOW_OPTION if file == ALLOW_OPTION else f"allowlist in {file}"
    if isinstance(config, AwsAllowlist):
        return Lists(
            allow=_aws_rules(document, config.allowlist),
            deny=(),
            allowlist_name=f"allowlist in {file}",
            rules_have_flags=False,
        )
    deny = _deny_rules(document, "denylist", config.denylist)
    if isinstance(config, EnclaveConfig):
        return Lists(
            # An enclave dials nothing: what a name stands for is the parent's to say.
            allow=tuple(
                replace(rule, dial=None)
                for rule in _allow_rules(document, "allowlist", config.allowlist)
            ),
            deny=deny,
            allowlist_name=allowlist_name,
            mode=config.mode,
            require_tls=config.require_tls,
        )
    is_one = cid is not None or pcrs is not None
    found = config.entry_of(cid, pcrs) if is_one else None
    mode = config.mode
    lacks_attestation = False
    if found is not None:
        index, entry = found
        allow = _allow_rules(document, f"enclaves[{index}].allowlist", entry.allowlist)
        deny += _deny_rules(document, f"enclaves[{index}].denylist", entry.denylist)
        whose = f"cid {cid}" if not entry.pcrs else entry.name or f"enclaves[{index}]"
        allowlist_name = f"allowlist of {whose} in {file}"
    elif is_one and config.wants_attestation(cid):
        allow, mode = (), "enforce"
        allowlist_name = f"allowlist of an entry with the measurements in {file}"
        lacks_attestation = True
    elif cid is not None and cid < FIRST_ENCLAVE_CID:
        allow, mode = (), "enforce"
        allowlist_name = f"allowlist of a new entry for cid {cid} under enclaves in {file}"
    else:
        allow = _allow_rules(document, "allowlist", config.allowlist)
    return Lists(
        allow=allow,
        deny=deny,
        allowlist_name=allowlist_name,
        mode=mode,
        mixed=config.mixed,
        require_tls=config.require_tls,
        lacks_attestation=lacks_attestation,
    )


def _allow_rules(document: Document, path: str, entries: Sequence[AllowRule]) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            pattern=parse_pattern(entry.address),
            ports=_allowed_ports(entry),
            source=document.location(f"{path}[{index}]"),
            private=entry.private,
            metadata=entry.metadata,
            dial=entry.dial,
            require_tls=entry.require_tls,
            names=entry.names,
            connections=entry.connections,
            rate=entry.rate,
        )
        for index, entry in enumerate(entries)
    )


def _allowed_ports(entry: AllowRule) -> tuple[PortSpan, ...]:
    if entry.port is None and entry.ports is None:
        return ()  # an error to `load`; where that was not asked, nothing rather than every port
    return rule_ports(entry.port, entry.ports)


def _deny_rules(document: Document, path: str, entries: Sequence[DenyRule]) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            pattern=parse_pattern(entry.address),
            ports=rule_ports(entry.port, entry.ports),
            source=document.location(f"{path}[{index}]"),
        )
        for index, entry in enumerate(entries)
    )


def _aws_rules(document: Document, entries: Sequence[AwsRule]) -> tuple[Rule, ...]:
    # AWS's proxy has no address guard: what its file lists may be private.
    return tuple(
        Rule(
            pattern=parse_pattern(entry.address),
            ports=rule_ports(entry.port, None),
            source=document.location(f"allowlist[{index}]"),
            private=True,
        )
        for index, entry in enumerate(entries)
    )
