"""`vsockproxy explain`: would a host and port be allowed, and by which line of which file."""

import ipaddress
import socket
import sys
from collections.abc import Mapping, Sequence

import click
import msgspec

from vsockproxy.addresses import AddressError, Host, IpAddress, normalise_host
from vsockproxy.cli.attestation_document import parse_pcrs
from vsockproxy.config.errors import ConfigErrors, FileNotReadable
from vsockproxy.config.field_types import PcrIndex, PcrValue
from vsockproxy.config.load import Document, load
from vsockproxy.config.model import EnclaveConfig, ParentConfig
from vsockproxy.errors import Refused
from vsockproxy.policy import LookUp, Party, Policy, Reason, Side, WayOut, explain

__all__ = ("command",)

EXIT_REFUSED = 1
EXIT_UNUSABLE = 2
"""Also what click exits with when an option or an argument is wrong."""

# glibc has both; musl has no EAI_NODATA.
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def _pcrs(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[int, bytes]:
    """Measurements that a file could have; a click callback."""
    pcrs = parse_pcrs(context, option, texts)
    for index, value in pcrs.items():
        try:
            msgspec.convert({str(index): value.hex()}, dict[PcrIndex, PcrValue])
        except msgspec.ValidationError:
            text = f"PCR{index} with {len(value)} bytes: there are PCR0 to PCR31, of 48 bytes"
            raise click.BadParameter(text) from None
    return pcrs


@click.command("explain")
@click.option(
    "--config",
    "files",
    type=click.Path(),
    metavar="FILE",
    multiple=True,
    required=True,
    help="The file of one side; given twice, both sides must allow. Example: --config parent.yaml",
)
@click.option("--resolve", "resolves", is_flag=True, help="Look the name up and judge the answer.")
@click.option(
    "--cid",
    type=click.IntRange(0, 0xFFFF_FFFE),
    metavar="CID",
    show_default="the file's own lists",
    help="The context identifier of the enclave that asks, for the parent's lists. "
    "Example: --cid 16",
)
@click.option(
    "--pcr",
    "pcrs",
    callback=_pcrs,
    metavar="N=HEX",
    multiple=True,
    show_default="it attests nothing",
    help="A measurement that the enclave attests, for the parent's lists; may be given several "
    "times. Example: --pcr 0=3b9e…",
)
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65_535))
def command(
    files: tuple[str, ...],
    resolves: bool,
    cid: int | None,
    pcrs: dict[int, bytes],
    host: str,
    port: int,
) -> None:
    """Say whether HOST and PORT are allowed, and which line decides.

    Exits with 0 if allowed, 1 if refused, 2 if a file or an argument cannot be used.
    """
    try:
        asked = normalise_host(host)
        documents = [load(file) for file in files]
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint="HOST") from None
    except (ConfigErrors, FileNotReadable) as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_UNUSABLE)
    look_up = _look_up_with(_fixed_hosts(documents)) if resolves else None
    parties = _parties(documents, cid, pcrs or None)
    explanation = explain(parties, asked, port, look_up)
    click.echo("\n".join(explanation.lines))
    sys.exit(0 if explanation.allowed else EXIT_REFUSED)


def _parties(
    documents: Sequence[Document], cid: int | None, pcrs: Mapping[int, bytes] | None
) -> list[Party]:
    """The sides that the files are for, the enclave first: it decides first."""
    parties: dict[Side, Party] = {}
    for document in documents:
        config = document.config
        side: Side = "enclave" if isinstance(config, EnclaveConfig) else "parent"
        if side in parties:
            raise click.UsageError(f"{document.file} is a second file for the {side}: give one")
        policy, way_out = Policy.compile(document), None
        if isinstance(config, ParentConfig):
            policy = Policy.compile(document, cid=cid, pcrs=pcrs)
            if config.upstream_proxy is not None:
                way_out = WayOut(config.upstream_proxy)
        parties[side] = Party(side, document.file, policy, way_out)
    is_parents = any(isinstance(each.config, ParentConfig) for each in documents)
    for option, value in (("--cid", cid), ("--pcr", pcrs)):
        if value is not None and not is_parents:
            raise click.UsageError(f"{option} chooses among the lists of a parent's file: give one")
    return sorted(parties.values(), key=lambda party: party.side)


def _fixed_hosts(documents: Sequence[Document]) -> dict[Host, tuple[IpAddress, ...]]:
    """The parent's `resolver.hosts`, which come before any server."""
    return {
        normalise_host(name): tuple(ipaddress.ip_address(address) for address in addresses)
        for document in documents
        if isinstance(document.config, ParentConfig)
        for name, addresses in document.config.resolver.hosts.items()
    }


def _look_up_with(fixed_hosts: Mapping[Host, tuple[IpAddress, ...]]) -> LookUp:
    def look_up(host: Host) -> tuple[IpAddress, ...]:
        return fixed_hosts[host] if host in fixed_hosts else _ask_system(host)

    return look_up


def _ask_system(host: Host) -> tuple[IpAddress, ...]:
    """Resolve as this machine is set up; `resolver.servers` are not asked.

    Raises:
        Refused: there is no such name, or the look-up failed.
    """
    try:
        # As bytes, so that the name does not pass through Python's IDNA codec.
        found = socket.getaddrinfo(host.text.encode("ascii"), None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        reason = Reason.NO_SUCH_NAME if error.errno in _NO_SUCH_NAME else Reason.LOOKUP_FAILED
        raise Refused(reason, f"{host}: {error.strerror}") from None
    addresses = (ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
    return tuple(dict.fromkeys(addresses))
