"""`vsockproxy attestation`: documents in which the hardware says what an enclave is."""

import click

from vsockproxy.cli.attestation_document import show, verify
from vsockproxy.cli.attestation_request import request
from vsockproxy.cli.verify_tls import verify_tls

__all__ = ("command",)


@click.group("attestation")
def command() -> None:
    """Show, verify and ask for attestation documents of enclaves."""


command.add_command(show)
command.add_command(verify)
command.add_command(request)
command.add_command(verify_tls)
