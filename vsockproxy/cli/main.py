"""The `vsockproxy` command, which imports a subcommand only when it is used.

So `--help`, `--version` and `check` start fast, and an enclave needs nothing of the parent's.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Final

import click

from vsockproxy import __version__

__all__ = ("SUBCOMMANDS", "main")

SUBCOMMANDS: Final = {
    "parent": "Run the parent's side: take enclaves' streams, decide, resolve, dial.",
    "enclave": "Run the enclave's side, and the command inside it.",
    "sandbox": "Run a command as in an enclave, on a machine without Nitro.",
    "credentials": "Serve the instance role's credentials to the parent's side.",
    "run-enclave": "Start an enclave with nitro-cli, follow it, start it again.",
    "aws-proxy": "Run vsock-proxy to KMS of this instance's region, as AWS's unit does.",
    "check": "Check configuration files, and whether both sides agree.",
    "status": "Show what the parent does at this moment.",
    "top": "Show what the parent does, live.",
    "explain": "Say whether a destination is allowed, and by which rule.",
    "eif": "Measure and build enclave image files.",
    "attestation": "Show and verify attestation documents of enclaves.",
    "doctor": "Say what this machine can do for us, and what to do about the rest.",
    "completion": "Print what lets a shell complete this command line.",
}
"""Name and one line of help; `vsockproxy.cli.NAME`, with '_' for '-', holds it as `command`."""

NEEDED: Final = {
    "parent": ("parent_side", "pycares"),
    "sandbox": ("parent_side", "pycares"),
    "credentials": ("parent_side",),
    "run-enclave": ("parent_side",),
    "top": ("rich",),
}
"""What a subcommand cannot do without; the extra `parent` brings it, an enclave lacks it."""


class LazyGroup(click.Group):
    """A group whose commands are modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands in the order of `SUBCOMMANDS`."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = import_module(
            f"vsockproxy.cli.{cmd_name.replace('-', '_')}"
        ).command
        missing = [name for name in NEEDED.get(cmd_name, ()) if find_spec(name) is None]
        return _without(command, missing) if missing else command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


def _without(command: click.Command, missing: list[str]) -> click.Command:
    """The same command, which only says that it cannot be run."""

    @click.pass_context
    def refuse(context: click.Context, /, **_: object) -> None:
        raise click.ClickException(
            f"vsockproxy {context.info_name} needs {' and '.join(missing)}, which is not here: "
            "install vsockproxy with its extra, as in pip install '.[parent]'"
        )

    return click.Command(
        command.name,
        context_settings=command.context_settings,
        params=command.params,
        help=command.help,
        callback=refuse,
    )


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vsockproxy")
def main() -> None:
    """Give the programs in a Nitro enclave the part of the network that a policy allows."""
