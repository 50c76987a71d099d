"""`vsock-proxy`, in place of AWS's command of that name; docs/operations.md says what differs."""

import os
import re
from dataclasses import dataclass, field
from typing import Final, NoReturn

import click

from vsockproxy import __version__
from vsockproxy.addresses import ANY_CID, Destination, Endpoint, VsockAddress
from vsockproxy.cli.rust_log import level_of
from vsockproxy.config.document import Document
from vsockproxy.config.load import ConfigError, ConfigErrors, FileNotReadable, load
from vsockproxy.config.model import Resolver
from vsockproxy.errors import VsockproxyError
from vsockproxy.listening import ListenError
from vsockproxy.policy import Policy
from vsockproxy.worker_messages import ForwardKind

__all__ = ("Surroundings", "main")

FAILED: Final = 1
"""Exit code for everything but wrong usage, which is 2 as with AWS's argument parser."""

DEFAULT_FILE: Final = "/etc/nitro_enclaves/vsock-proxy.yaml"
DEFAULT_WORKERS: Final = "4"

HIGHEST_LOCAL_PORT: Final = 0xFFFF_FFFE  # the next one is VMADDR_PORT_ANY
HIGHEST_REMOTE_PORT: Final = 0xFFFF
HIGHEST_WORKERS: Final = 0xFFFF_FFFF_FFFF_FFFF

_NUMBER = re.compile(r"\+?0*([0-9]{1,20})", re.ASCII)
"""What Rust's `parse` takes for an unsigned number; 20 digits hold the largest there is."""

_CHECK: Final = "Error at checking the allowlist"
_NOT_ALLOWED: Final = "The given address and port are not allowed"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the command line cannot say, and tests say where there is no vsock.

    Args:
        listen: where enclaves connect, in place of LOCAL_PORT.
        resolver: how names are resolved.
    """

    listen: Endpoint | None = None
    resolver: Resolver = field(default_factory=Resolver)


class CannotStart(VsockproxyError):
    """Something is wrong that has nothing to do with usage; the text begins with AWS's words."""


@click.command(name="vsock-proxy", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-4", "--ipv4", "is_ipv4", is_flag=True, help="Dial IPv4 addresses only.")
@click.option("-6", "--ipv6", "is_ipv6", is_flag=True, help="Dial IPv6 addresses only.")
@click.option(
    "-w",
    "--num_workers",
    "workers",
    metavar="N",
    default=DEFAULT_WORKERS,
    show_default=True,
    help="Workers, at least 1; without effect, connections are not limited by it. Example: -w 8",
)
@click.option(
    "--config",
    "file",
    type=click.Path(),
    metavar="FILE",
    default=DEFAULT_FILE,
    show_default=True,
    help="The addresses and ports that may be proxied. Example: --config ./vsock-proxy.yaml",
)
@click.version_option(
    __version__,
    "-V",
    "--version",
    prog_name="vsock-proxy",
    message="%(prog)s %(version)s (vsockproxy)",
)
@click.argument("local_port")
@click.argument("remote_addr")
@click.argument("remote_port")
@click.pass_context
def main(
    context: click.Context,
    is_ipv4: bool,
    is_ipv6: bool,
    workers: str,
    file: str,
    local_port: str,
    remote_addr: str,
    remote_port: str,
) -> None:
    """Connect each connection to vsock port LOCAL_PORT with REMOTE_ADDR:REMOTE_PORT over TCP.

    The address and port must be listed in FILE, which has the form of AWS's vsock-proxy.yaml.
    RUST_LOG says what is logged: error, warn (refusals, too; the default), info (connections, too)
    or debug.

    Runs until SIGTERM, then exits with 0. Exits with 1 if it cannot start, with 2 for wrong usage.
    """
    if is_ipv4 and is_ipv6:
        raise click.UsageError("--ipv6 cannot be used with --ipv4")
    surroundings = context.find_object(Surroundings) or Surroundings()
    kind: ForwardKind = "forward_ipv4" if is_ipv4 else "forward_ipv6" if is_ipv6 else "forward"
    log_level, unreadable = level_of(os.environ.get("RUST_LOG", ""))
    for directive in unreadable:
        _say(f"warning: invalid logging spec {directive!r}, ignoring it")
    try:
        port = _parse_number("Local port", local_port, HIGHEST_LOCAL_PORT)
        to_port = _parse_number("Remote port", remote_port, HIGHEST_REMOTE_PORT)
        _check_workers(workers)
        allowlist = _load(file)
        to, index = _find_listed(allowlist, remote_addr, to_port, kind)

        from parent_side import aws

        document = aws.make_document(
            allowlist,
            index,
            listen=surroundings.listen or VsockAddress(ANY_CID, port),
            to=to,
            log_level=log_level,
            resolver=surroundings.resolver,
        )
        status = aws.serve(document, kind)
    except CannotStart as error:
        _fail(context, str(error))
    except ListenError as error:
        bound = str(error).replace("cannot listen on", "Could not bind to", 1)
        _fail(context, f"Could not listen for connections: {bound}")
    context.exit(status)


def _parse_number(name: str, text: str, highest: int) -> int:
    found = _NUMBER.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= highest:
        raise CannotStart(f"{name} is not valid: {text!r}: write a number within 1-{highest}")
    return int(found[1])


def _check_workers(text: str) -> None:
    found = _NUMBER.fullmatch(text)
    if found is not None and not int(found[1]):
        raise CannotStart("Number of workers must not be 0: write 1 or more, or leave -w out")
    _parse_number("Number of workers", text, HIGHEST_WORKERS)


def _load(file: str) -> Document:
    try:
        return load(file, "aws")
    except FileNotReadable as error:
        raise CannotStart(f"{_CHECK}: Could not open the file: {error}") from None
    except ConfigErrors as errors:
        raise CannotStart(f"{_CHECK}: {_describe(errors.errors[0])}\n{errors}") from None


def _describe(error: ConfigError) -> str:
    """What AWS's proxy says of such a file."""
    is_absent = error.what == "missing" or error.what.endswith("does not fit")
    if error.path == "allowlist" and is_absent:
        return "No allowlist field"
    if error.path.endswith(".address") and is_absent:
        return "No address field"
    if error.path.endswith(".port"):
        return "No port field or invalid type"
    return "Bad yaml format"


def _find_listed(
    allowlist: Document, remote_addr: str, port: int, kind: ForwardKind
) -> tuple[Destination, int]:
    """The destination in normal form, and the index of the entry that lists it."""
    policy = Policy.compile(allowlist)
    decision, host = policy.decide_text(remote_addr, port)
    if decision.allowed and host is not None and host.address is not None:
        decision, _ = policy.judge(decision, host, port, [host.address])
    if not decision.allowed or host is None:
        raise CannotStart(f"{_CHECK}: {_NOT_ALLOWED}: {decision.text}")
    if host.address is not None and kind not in ("forward", f"forward_ipv{host.address.version}"):
        other = "--ipv6" if kind == "forward_ipv6" else "--ipv4"
        text = f"{host} is an IPv{host.address.version} address: leave {other} out"
        raise CannotStart(f"{_CHECK}: No accepted IP was found: {text}")
    assert decision.rule is not None  # there is no `mode` in AWS's file
    return Destination(host, port), policy.lists.allow.index(decision.rule)


def _fail(context: click.Context, text: str) -> NoReturn:
    _say(f"Error: {text}")
    context.exit(FAILED)


def _say(text: str) -> None:
    # A file's name may be any bytes; they come out as they went in.
    click.echo(text.encode("utf-8", "surrogateescape"), err=True)


if __name__ == "__main__":
    main()
