"""`vsockproxy parent`: the parent's side, as a service."""

import click

from vsockproxy.cli.files import load_or_exit

__all__ = ("command",)


@click.command(name="parent")
@click.option(
    "--config",
    "file",
    type=click.Path(),
    metavar="FILE",
    default="/etc/vsockproxy/parent.yaml",
    show_default=True,
    help="The parent's configuration. Example: --config ./parent.yaml",
)
@click.pass_context
def command(context: click.Context, file: str) -> None:
    """Run the parent's side until SIGTERM.

    Takes the streams of enclaves, checks each against the allowlist, resolves, dials and relays.

    SIGHUP has it read its file again; a file that is not valid changes nothing, and the log says
    why. On SIGTERM open streams have `drain` seconds to end; a second SIGTERM cuts them.

    Exits with 0 on SIGTERM, with 1 if a listener cannot be bound, with 2 if the file is not valid.
    """
    document = load_or_exit(context, file, "parent")
    from parent_side import service

    context.exit(service.run(document, file=file, is_service=True))
