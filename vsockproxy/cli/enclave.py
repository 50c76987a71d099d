"""`vsockproxy enclave`: the enclave's side, around the user's command."""

import os

import click

from vsockproxy.cli.files import load_or_exit

__all__ = ("command",)

INIT = 1
"""The process id that has the duties of init (pid_namespaces(7))."""


@click.command(name="enclave", context_settings={"allow_interspersed_args": False})
@click.option(
    "--config",
    "file",
    type=click.Path(),
    metavar="FILE",
    default="/etc/vsockproxy/enclave.yaml",
    show_default=True,
    help="The enclave's configuration. Example: --config ./enclave.yaml",
)
@click.option(
    "--take-over",
    "takes_over",
    is_flag=True,
    help="Set the machine up although this is not PID 1: lo, and for CMD a network namespace and a "
    "resolv.conf of its own.",
)
@click.argument("words", metavar="[-- CMD ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, file: str, takes_over: bool, words: tuple[str, ...]) -> None:
    """Run the enclave's side, and CMD, or the commands of the file, once it is ready.

    As PID 1 it sets the machine up, reaps orphans and passes signals on.

    Exits with the status of CMD, with 128+N if signal N ended it, with 127 if there is no such
    program, with 126 if it is not executable. Without CMD it runs until SIGTERM and exits with 0.
    Exits with 1 if a listener cannot be bound, with 2 if the file is not valid.
    """
    document = load_or_exit(context, file, "enclave")
    from enclave_side import entrypoint

    if os.getpid() == INIT:
        entrypoint.become_init(document, words)
    context.exit(entrypoint.run(document, words, ground="taken_over" if takes_over else "shared"))
