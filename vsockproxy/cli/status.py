"""`vsockproxy status`: what the parent does at this moment, once."""

import json
import sys

import click

from vsockproxy.cli.admin_client import AdminError, admin_option, ask

__all__ = ("command",)

EXIT_NOT_READY = 1
EXIT_NOT_ASKED = 2


@click.command("status")
@admin_option
@click.option("--json", "as_json", is_flag=True, help="Print what the endpoint says, as JSON.")
def command(endpoint: str, as_json: bool) -> None:
    """Show whether the parent is ready, its enclaves, and what it refused last.

    Exits with 0 if it is ready, 1 if not, 2 if it cannot be asked.
    """
    try:
        status = ask(endpoint, "/status")
    except AdminError as error:
        click.echo(f"vsockproxy: {error}", err=True)
        sys.exit(EXIT_NOT_ASKED)
    if as_json:
        click.echo(json.dumps(status, indent=2))
    else:
        from rich.console import Console

        from vsockproxy.cli.status_view import draw

        console = Console(highlight=False)
        console.print(draw(status, width=console.width))
    sys.exit(0 if status["ready"] else EXIT_NOT_READY)
