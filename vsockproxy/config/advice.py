"""What is no error in a file, and all the same not what an operator wants in the end."""

from collections.abc import Iterator
from ipaddress import ip_address

from vsockproxy.addresses import Endpoint, TcpAddress
from vsockproxy.config.document import Document, line_of
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.metadata_address import parse_metadata_url
from vsockproxy.config.model import AllowRule, EnclaveConfig, ParentConfig
from vsockproxy.nsm_locations import NSM_DEVICE

__all__ = ("advise",)

FIRST_FREE_PORT = 1024
"""Lower ones need CAP_NET_BIND_SERVICE, where the machine has not another limit (ip(7))."""

CODE_PCRS = frozenset({0, 2, 8})
"""The image, its application, and who signed it; the kernel alone (1) runs any program."""


def advise(document: Document) -> tuple[ConfigError, ...]:
    """Warnings: of what fails under the shipped systemd units, and of what proves nothing."""
    config = document.config
    match config:
        case ParentConfig():
            found = [
                *_privileged_ports(config),
                *_metadata_rules(config),
                *_metadata_service(config),
                *_measurements(config),
                *_allowlist_for_nobody(config),
            ]
        case EnclaveConfig():
            found = [*_attestation(config)]
        case _:
            found = []
    found += _empty_sections(document)
    return tuple(
        ConfigError(document.file, line_of(document.lines, path), path, what, mend)
        for path, what, mend in found
    )


def _empty_sections(document: Document) -> Iterator[tuple[str, str, str]]:
    for path, words in document.empty_sections.items():
        name = path.rpartition(".")[2]
        mend = f"write {name}: {{}}" if words == "a mapping" else f"write {words}"
        yield path, "nothing is written here, so it is off", f"{mend}, or remove it"


def _attestation(config: EnclaveConfig) -> Iterator[tuple[str, str, str]]:
    if config.has_software_nsm:
        what = "a software NSM is for development and tests: its documents prove nothing"
        yield "attestation.device", what, f"write {NSM_DEVICE} for an enclave"
    elif config.attestation is not None and config.attestation.root is not None:
        what = "nothing in an enclave verifies documents: with a device this has no effect"
        mend = "remove it, and name the root where they are verified: parent.yaml, or --root"
        yield "attestation.root", what, mend


def _privileged_ports(config: ParentConfig) -> Iterator[tuple[str, str, str]]:
    for path, endpoint in _tcp_listeners(config):
        if isinstance(endpoint, TcpAddress) and 0 < endpoint.port < FIRST_FREE_PORT:
            what = f"the unit vsockproxy-parent.service has no capability for port {endpoint.port}"
            mend = (
                "let systemd listen: a drop-in for vsockproxy-parent.socket with "
                f"ListenStream={str(endpoint).removeprefix('tcp://')}"
            )
            yield path, what, mend


def _tcp_listeners(config: ParentConfig) -> Iterator[tuple[str, Endpoint]]:
    for index, ingress in enumerate(config.ingress):
        yield f"ingress[{index}].listen", ingress.listen
    if config.admin is not None:
        yield "admin.listen", config.admin.listen


def _metadata_rules(config: ParentConfig) -> Iterator[tuple[str, str, str]]:
    for path, rules in _allowlists(config):
        for index, rule in enumerate(rules):
            if rule.metadata:
                what = f"the unit vsockproxy-parent.service may not reach {rule.address}"
                mend = f"a drop-in for it with IPAddressAllow={rule.address} in [Service]"
                yield f"{path}[{index}].metadata", what, mend


def _metadata_service(config: ParentConfig) -> Iterator[tuple[str, str, str]]:
    if config.credentials is None or config.credentials.imds is None:
        return
    address = ip_address(parse_metadata_url(config.credentials.imds).host)
    if not address.is_loopback:
        what = f"the unit vsockproxy-parent.service may not reach {address}"
        mend = (
            f"a drop-in for it with IPAddressAllow={address} in [Service], or credentials.socket "
            "and vsockproxy-credentials.service in its place"
        )
        yield "credentials.imds", what, mend


def _measurements(config: ParentConfig) -> Iterator[tuple[str, str, str]]:
    for index, entry in enumerate(config.enclaves):
        if entry.pcrs and not CODE_PCRS & entry.measurements.keys():
            what = "none of these PCRs says what code runs: any image has them"
            yield f"enclaves[{index}].pcrs", what, "write PCR0 of the image, or PCR8 of its signer"


def _allowlist_for_nobody(config: ParentConfig) -> Iterator[tuple[str, str, str]]:
    demanding = next((n for n, each in enumerate(config.enclaves) if each.cid is None), None)
    if config.allowlist and demanding is not None:
        what = f"no enclave has this list: enclaves[{demanding}] could be for every CID"
        mend = "write it into entries with the CIDs of those who may do without attestation"
        yield "allowlist", what, mend


def _allowlists(config: ParentConfig) -> Iterator[tuple[str, list[AllowRule]]]:
    yield "allowlist", config.allowlist
    for index, entry in enumerate(config.enclaves):
        yield f"enclaves[{index}].allowlist", entry.allowlist
