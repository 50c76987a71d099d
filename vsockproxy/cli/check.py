"""`vsockproxy check`: what is wrong in configuration files, and where two sides disagree."""

from dataclasses import replace

import click

from vsockproxy.config.compare import compare_sides
from vsockproxy.config.load import ConfigError, ConfigErrors, Document, FileNotReadable, load

__all__ = ("command",)


@click.command(name="check")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning, too.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.pass_context
def command(context: click.Context, strict: bool, files: tuple[str, ...]) -> None:
    """Check configuration files: a parent's, an enclave's, or AWS's vsock-proxy.yaml.

    Prints a line for each error, FILE:LINE: PATH: what is wrong: what to write instead. Given both
    sides it also prints, as warnings, what one allows and the other refuses.

    Exits with 0 if there is no error, with 1 if there is one, with 2 if a file cannot be opened.
    """
    status = 0
    documents: list[Document] = []
    for file in dict.fromkeys(files):
        try:
            documents.append(load(file))
        except FileNotReadable as error:
            click.echo(error, err=True)
            status = 2
        except ConfigErrors as errors:
            for config_error in errors.errors:
                _print(config_error)
            status = status or 1
    warnings = compare_sides(
        [document for document in documents if document.kind == "parent"],
        [document for document in documents if document.kind == "enclave"],
    )
    for warning in warnings:
        _print(replace(warning, what=f"warning: {warning.what}"))
    warned = {warning.file for warning in warnings}
    for document in documents:
        if document.file not in warned:
            click.echo(f"{document.file}: ok", err=True)
    if warnings and strict:
        status = status or 1
    context.exit(status)


def _print(error: ConfigError) -> None:
    # A file's name may be any bytes; they come out as they went in.
    click.echo(str(error).encode("utf-8", "surrogateescape"))
