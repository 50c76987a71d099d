"""`vsockproxy aws-proxy`: what AWS's nitro-enclaves-vsock-proxy.service does, without curl."""

import os
from typing import Final

import click

from vsockproxy.addresses import UnixAddress
from vsockproxy.cli.endpoints import unix_address
from vsockproxy.config.model import CREDENTIALS_SOCKET
from vsockproxy.processes import module_command, tell

__all__ = ("command",)

FAILED: Final = 1

DEFAULT_FILE: Final = "/etc/nitro_enclaves/vsock-proxy.yaml"
DEFAULT_PORT: Final = 8000
WAIT_SECONDS: Final = 30.0


@click.command(name="aws-proxy")
@click.option(
    "--credentials",
    "service",
    metavar="ENDPOINT",
    default=f"unix://{CREDENTIALS_SOCKET}",
    show_default=True,
    callback=unix_address,
    help="The socket of `vsockproxy credentials`, which knows the region.",
)
@click.option(
    "--region",
    metavar="NAME",
    help="The region, as eu-west-1; nobody is asked then.",
)
@click.option(
    "--service",
    "aws_service",
    metavar="NAME",
    default="kms",
    show_default=True,
    help="The service of AWS, as kms or kms-fips.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 0xFFFF_FFFE),
    default=DEFAULT_PORT,
    show_default=True,
    help="The vsock port to listen on.",
)
@click.option(
    "--config",
    "file",
    metavar="FILE",
    default=DEFAULT_FILE,
    show_default=True,
    help="The addresses and ports that may be proxied, as for vsock-proxy.",
)
@click.pass_context
def command(
    context: click.Context,
    service: UnixAddress,
    region: str | None,
    aws_service: str,
    port: int,
    file: str,
) -> None:
    """Become `vsock-proxy PORT kms.REGION.SUFFIX 443`, with this instance's region.

    The region comes from `vsockproxy credentials`, and is waited for up to 30 s; SUFFIX is that of
    its partition, amazonaws.com.cn in China. Example: vsockproxy aws-proxy --service kms-fips

    Exits with 1 if the region is not to be had, else as vsock-proxy does.
    """
    from vsockproxy.credentials.errors import CredentialsError
    from vsockproxy.credentials.regions import endpoint_host, parse_region

    try:
        if region is not None:
            found = parse_region(region)
        else:
            from parent_side.services.instance_region import find_region

            found = find_region(service, WAIT_SECONDS)
    except CredentialsError as error:
        tell(error)
        context.exit(FAILED)
    words = module_command(
        "vsockproxy.cli.aws",
        *("--config", file),
        str(port),
        endpoint_host(aws_service, found),
        "443",
    )
    os.execv(words[0], words)
