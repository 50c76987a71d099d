"""`vsockproxy credentials`: the instance role's credentials for enclaves, behind a unix socket."""

from ipaddress import ip_address
from typing import Final

import click

from vsockproxy.addresses import AddressError, TcpAddress, UnixAddress, parse_tcp_address
from vsockproxy.cli.endpoints import unix_address
from vsockproxy.config.model import CREDENTIALS_SOCKET

__all__ = ("command",)

DEFAULT_METADATA_ADDRESS: Final = "169.254.169.254:80"


def _metadata_address(context: click.Context, option: click.Parameter, text: str) -> TcpAddress:
    del context, option
    try:
        address = parse_tcp_address(text)
        literal = ip_address(address.host)
    except (AddressError, ValueError) as error:
        raise click.BadParameter(f"{error}: write ADDRESS:PORT") from None
    if not (literal.is_loopback or literal.is_link_local or str(literal) == "fd00:ec2::254"):
        raise click.BadParameter(f"{literal} is no address of this machine's metadata service")
    return address


@click.command(name="credentials")
@click.option(
    "--listen",
    metavar="ENDPOINT",
    default=f"unix://{CREDENTIALS_SOCKET}?mode=0660",
    show_default=True,
    callback=unix_address,
    help="The unix socket to serve on. Whoever may open it has the instance's role; so ?mode= and "
    "the process's group say who may.",
)
@click.option(
    "--metadata-address",
    metavar="ADDRESS:PORT",
    default=DEFAULT_METADATA_ADDRESS,
    show_default=True,
    callback=_metadata_address,
    help="Where the instance metadata service is: link-local, [fd00:ec2::254]:80, or loopback "
    "(for tests).",
)
@click.pass_context
def command(context: click.Context, listen: UnixAddress, metadata_address: TcpAddress) -> None:
    """Serve the instance role's credentials and the region to the parent's side.

    Asks the instance metadata service (IMDSv2 only), renews the credentials 10 to 15 minutes before
    they expire, and keeps the old ones as long as they last. GET /credentials, /region and /healthz
    are answered in HTTP. Example: curl --unix-socket SOCKET http://localhost/region

    Exits with 0 on SIGTERM, with 1 if the socket cannot be bound.
    """
    from parent_side.services import credentials_service

    context.exit(credentials_service.run(listen, metadata_address))
