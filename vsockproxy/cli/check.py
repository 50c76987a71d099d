"""`vsockproxy check`: what is wrong in configuration files, where sides disagree, what changes."""

from dataclasses import replace

import click

from vsockproxy.cli.files import check_files_of
from vsockproxy.config.advice import advise
from vsockproxy.config.changes import changes_since
from vsockproxy.config.compare import compare_sides
from vsockproxy.config.enclave_run import is_enclave_run, parse_enclave_run
from vsockproxy.config.kms_advice import advise_kms
from vsockproxy.config.load import (
    ConfigError,
    ConfigErrors,
    Document,
    FileNotReadable,
    parse,
    read_file,
)

__all__ = ("command",)


class _Files:
    """Files as they are read, and the exit status so far.

    Those of `run-enclave` stand alone: there is nothing to compare them with.
    """

    def __init__(self) -> None:
        self.status = 0
        self.enclave_runs: list[str] = []

    def read(self, file: str) -> Document | None:
        """Read one; what is wrong with it is printed."""
        try:
            content = read_file(file)
            if not is_enclave_run(content):
                document = parse(content, file)
                check_files_of(document)
                return document
            parse_enclave_run(content, file)
            self.enclave_runs.append(file)
        except FileNotReadable as error:
            click.echo(error, err=True)
            self.status = 2
        except ConfigErrors as errors:
            for config_error in errors.errors:
                _print(config_error)
            self.status = self.status or 1
        return None


@click.command(name="check")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning, too.")
@click.option(
    "--since",
    "old_file",
    type=click.Path(),
    metavar="OLD",
    show_default="no file, nothing is compared",
    help="Also print what a reload from OLD to FILE would newly allow or forbid. "
    "Example: --since /etc/vsockproxy/parent.yaml",
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.pass_context
def command(
    context: click.Context, strict: bool, old_file: str | None, files: tuple[str, ...]
) -> None:
    """Check configuration files: a parent's, an enclave's, run-enclave's, AWS's vsock-proxy.yaml.

    Prints a line for each error, FILE:LINE: PATH: what is wrong: what to write instead. Given both
    sides it also prints, as warnings, what one allows and the other refuses; and of a parent's
    file, what the shipped systemd unit would have to allow for it.

    With --since it compares each FILE of OLD's kind with OLD: a line for each destination that is
    newly allowed or newly forbidden, and for which enclaves. These are no warnings.

    Exits with 0 if there is no error, with 1 if there is one, with 2 if a file cannot be opened.
    """
    reading = _Files()
    found = [reading.read(file) for file in dict.fromkeys(files)]
    documents = [document for document in found if document is not None]
    valid = reading.enclave_runs.copy()
    old = reading.read(old_file) if old_file is not None else None
    if len(reading.enclave_runs) > len(valid):
        raise click.BadParameter(
            f"{old_file} is run-enclave's: no reload changes an enclave", param_hint="--since"
        )
    from vsockproxy.credentials.regions import endpoint_host
    from vsockproxy.policy.closed_literals import advise_closed_literals, needs_private

    warnings = [
        *(advice for document in documents for advice in advise(document)),
        *(advice for document in documents for advice in advise_closed_literals(document)),
        *(
            advice
            for document in documents
            for advice in advise_kms(document, endpoint_host, needs_private)
        ),
        *compare_sides(
            [document for document in documents if document.kind == "parent"],
            [document for document in documents if document.kind == "enclave"],
        ),
    ]
    for warning in warnings:
        _print(replace(warning, what=f"warning: {warning.what}"))
    if old is not None:
        alike = [document for document in documents if document.kind == old.kind]
        if documents and not alike:
            raise click.BadParameter(
                f"{old.file} is of another kind than FILE", param_hint="--since"
            )
        for document in alike:
            for change in changes_since(old, document):
                _print(change)
    warned = {warning.file for warning in warnings}
    valid += [document.file for document in documents if document.file not in warned]
    for file in dict.fromkeys(files):
        if file in valid:
            click.echo(f"{file}: ok", err=True)
    if warnings and strict:
        reading.status = reading.status or 1
    context.exit(reading.status)


def _print(error: ConfigError) -> None:
    # A file's name may be any bytes; they come out as they went in.
    click.echo(str(error).encode("utf-8", "surrogateescape"))
