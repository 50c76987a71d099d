"""The words of refusals: what was refused, and what the operator can do about it."""

from collections.abc import Iterable, Sequence
from typing import Final

from vsockproxy.addresses import Destination, Host, IpAddress, format_ip
from vsockproxy.config.patterns import AddressPattern
from vsockproxy.policy.guard import AddressClass, Finding, closed
from vsockproxy.policy.lists import ALLOW_OPTION, Lists
from vsockproxy.policy.reasons import Reason
from vsockproxy.policy.rules import Rule, describe_ports

__all__ = (
    "ANY_PORT",
    "MOST_RULES_SHOWN",
    "attestation_required",
    "closed_address",
    "denied_address",
    "name_not_listed",
    "not_listed",
    "port_not_listed",
)

ANY_PORT: Final = 0
"""In `asked`: there is no port, because a name was asked for; a rule to add has the word PORT."""

MOST_RULES_SHOWN: Final = 3
"""Rules that the text of one refusal names."""

_PRIVATE_FLAG: Final = "private: true"
_METADATA_FLAG: Final = "metadata: true"
_NO_RULE_OPENS_IT: Final = "no rule opens it"


def attestation_required(host: Host) -> str:
    """The enclave has none of the measurements that entries for its CID demand."""
    return (
        f"{host} is for enclaves that attest themselves: add the PCRs of this one to enclaves, or "
        "an entry with its cid alone (raw ports cannot attest)"
    )


def not_listed(lists: Lists, asked: Destination) -> str:
    """No rule covers the host."""
    return f"{asked} is not listed: {_new_rule(lists, asked)}"


def name_not_listed(lists: Lists, host: Host) -> str:
    """No rule covers the name on any port."""
    return f"{host} is not listed: {_new_rule(lists, Destination(host, ANY_PORT))}"


def port_not_listed(lists: Lists, asked: Destination, covering: Sequence[Rule]) -> str:
    """The rules `covering` the host do not cover the port; not all of them need be given."""
    shown = ", ".join(
        f"{describe_ports(rule.ports)} ({rule.source})" for rule in covering[:MOST_RULES_SHOWN]
    )
    more = ", …" if len(covering) > MOST_RULES_SHOWN else ""
    return (
        f"{asked.host} is listed for {shown}{more}, not for port {asked.port}: "
        f"{_new_rule(lists, asked)}"
    )


def denied_address(
    asked: Host, dialled: Host, address: IpAddress, part: IpAddress, deny: Rule
) -> str:
    """`deny` covers `part`: the address itself, or an IPv4 address inside it."""
    return _about(asked, dialled, address, part, f"denied at {deny.source}")


def closed_address(
    lists: Lists,
    rule: Rule | None,
    asked: Destination,
    dialled: Host,
    address: IpAddress,
    shut: Sequence[Finding],
) -> str:
    """The guard refuses an address.

    Args:
        lists: the lists that the decision was made by.
        rule: the rule that allowed the stream so far; None with `mode: report`.
        asked: what the program asked for.
        dialled: what was to be dialled: the host asked for, or that of the rule's `dial`.
        address: the literal `dialled`, or what that name resolved to.
        shut: what is wrong with `address`, most severe first.
    """
    what = shut[0].address_class.value
    if shut[0].address_class is AddressClass.PRIVATE and dialled.address is None:
        what = f"{what} (a VPC endpoint?)"
    mend = _mend(lists, rule, asked, address, shut)
    return f"{_about(asked.host, dialled, address, shut[0].address, what)}: {mend}"


def _about(asked: Host, dialled: Host, address: IpAddress, part: IpAddress, what: str) -> str:
    """Say `what` of `part` of `address`, and how the host asked for came to stand for it."""
    shown = format_ip(address)
    held = "" if part == address else f"{format_ip(part)}, "
    if dialled == asked and asked.address is not None:
        return f"{shown} holds {held}{what}" if held else f"{shown} is {what}"
    via = "" if dialled == asked else " is dialled as"
    if dialled.address is None:
        via = f"{via} {dialled}, which resolved to" if via else " resolved to"
    return f"{asked}{via} {shown}, {f'which holds {held}' if held else ''}{what}"


def plain_mend(rule: Rule | None) -> str:
    """What to change so that a stream under `rule` may begin without TLS."""
    if rule is None:
        return "set require_tls: false to allow it"
    if rule.source == ALLOW_OPTION:
        return (
            f"{ALLOW_OPTION} is for TLS: to allow it, write a rule with require_tls: false into a "
            "file for --config-enclave"
        )
    return f"add require_tls: false at {rule.source} to allow it"


def _mend(
    lists: Lists,
    rule: Rule | None,
    asked: Destination,
    address: IpAddress,
    shut: Sequence[Finding],
) -> str:
    flags = _flags_that_open(address, shut)
    if flags is None:
        return _NO_RULE_OPENS_IT
    if _METADATA_FLAG not in flags:
        if rule is None:
            return _new_rule(lists, asked, flags)
        return f"add {_PRIVATE_FLAG} at {rule.source}"
    if asked.host.address != address:
        return f"only a rule that is that literal, with {_METADATA_FLAG}, opens it"
    if rule is None or not lists.rules_have_flags:
        return _new_rule(lists, asked)
    if isinstance(rule.pattern, AddressPattern) and rule.pattern.is_literal:
        return f"add {_METADATA_FLAG} at {rule.source}"
    return f"{_new_rule(lists, asked)}, before {rule.source}"


def _new_rule(lists: Lists, asked: Destination, flags: tuple[str, ...] = ()) -> str:
    """The rule to add, with `flags`, or with those that a literal needs."""
    port = "PORT" if asked.port == ANY_PORT else str(asked.port)
    if lists.allowlist_name == ALLOW_OPTION:
        shown = f"{asked.host}:{port}" if asked.port == ANY_PORT else str(asked)
        return f"add {ALLOW_OPTION} {shown}"
    literal = asked.host.address
    if literal is not None:
        needed = _flags_that_open(literal, closed(literal, private=False, metadata=False))
        if needed is None:
            return _NO_RULE_OPENS_IT
        if _METADATA_FLAG in needed and not lists.rules_have_flags:
            return f"only a rule with {_METADATA_FLAG} in a file of `vsockproxy parent` opens it"
        flags = needed
    keys = [f'address: "{asked.host}"', f"port: {port}"]
    keys += flags if lists.rules_have_flags else ()
    return f"add {{{', '.join(keys)}}} to {lists.allowlist_name}"


def _flags_that_open(address: IpAddress, shut: Iterable[Finding]) -> tuple[str, ...] | None:
    """What a rule has to say for `address`; None if no rule opens it."""
    flags: dict[str, None] = {}
    for finding in shut:
        if finding.reason is Reason.ADDRESS_PRIVATE:
            flags[_PRIVATE_FLAG] = None
        elif finding.address_class is AddressClass.METADATA and finding.address == address:
            flags[_METADATA_FLAG] = None
        else:
            return None
    return tuple(flags)
