"""Rules for addresses that the address guard refuses all the same, found before a call fails."""

from collections.abc import Iterator

from vsockproxy.addresses import normalise_host
from vsockproxy.config.document import Document, line_of
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.model import AllowRule, EnclaveConfig, ParentConfig
from vsockproxy.config.patterns import AddressPattern, parse_pattern
from vsockproxy.policy.guard import AddressClass, Finding, closed, closed_class
from vsockproxy.policy.reasons import Reason

__all__ = ("advise_closed_literals", "needs_private")


def needs_private(host: str) -> bool:
    """Whether a rule for a host has to say `private: true`: for no name, and for some addresses.

    Args:
        host: a name or an IP literal, in normal form.
    """
    address = normalise_host(host).address
    if address is None:
        return False
    shut = closed(address, private=False, metadata=False)
    return bool(shut) and not closed(address, private=True, metadata=False)


def advise_closed_literals(document: Document) -> Iterator[ConfigError]:
    """Warn of each rule for an address or a network, dialled as it is, that opens nothing.

    A network of which a part can be reached is nobody's mistake.

    Args:
        document: any file.
    """
    for path, rules in _allowlists(document):
        for index, rule in enumerate(rules):
            pattern = parse_pattern(rule.address)
            if rule.dial is not None or not isinstance(pattern, AddressPattern):
                continue
            address = pattern.network.network_address
            shut: tuple[Finding, ...]
            if pattern.is_literal:
                shut = closed(address, private=rule.private, metadata=rule.metadata)
            else:
                of_all = closed_class(pattern.network, private=rule.private)
                shut = () if of_all is None else (Finding(address, of_all),)
            if shut:
                at = f"{path}[{index}]"
                what = f"{pattern} is {shut[0].address_class.value}, which this rule does not open"
                mend = _mend(pattern, shut)
                yield ConfigError(document.file, line_of(document.lines, at), at, what, mend)


def _allowlists(document: Document) -> Iterator[tuple[str, list[AllowRule]]]:
    config = document.config
    if isinstance(config, ParentConfig | EnclaveConfig):
        yield "allowlist", config.allowlist
    if isinstance(config, ParentConfig):
        for index, entry in enumerate(config.enclaves):
            yield f"enclaves[{index}].allowlist", entry.allowlist


def _mend(pattern: AddressPattern, shut: tuple[Finding, ...]) -> str:
    if all(finding.reason is Reason.ADDRESS_PRIVATE for finding in shut):
        return "add private: true"
    (only, *others) = shut
    is_itself = only.address == pattern.network.network_address
    if only.address_class is AddressClass.METADATA and is_itself and not others:
        if not pattern.is_literal:
            return "write the one address that is meant, as 169.254.169.254, with metadata: true"
        return "add metadata: true, if programs may have this instance's role"
    return "remove it: no rule opens it"
