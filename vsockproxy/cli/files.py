"""Configuration files of the commands that run something."""

from typing import Literal

import click

from vsockproxy.config.document import Document

__all__ = ("check_files_of", "load_or_exit")

EXIT_INVALID = 2


def load_or_exit(context: click.Context, file: str, kind: Literal["parent", "enclave"]) -> Document:
    """Load a file; if it is not valid, print what `check` prints to stderr, and exit with 2.

    So with the files for TLS, and of trusted roots, that it names.
    """
    # Imported here: a sandbox without files starts faster without YAML.
    from vsockproxy.config.load import ConfigErrors, FileNotReadable, load

    try:
        document = load(file, kind)
        check_files_of(document)
        return document
    except (ConfigErrors, FileNotReadable) as error:
        click.echo(error, err=True)
        context.exit(EXIT_INVALID)


def check_files_of(document: Document) -> None:
    """Look at the files that a configuration names: those for TLS, and of trusted roots.

    Raises:
        ConfigErrors: what is wrong with them.
    """
    from vsockproxy.config.load import ConfigErrors
    from vsockproxy.tls_files import check_tls_files
    from vsockproxy.trusted_roots import root_file_fault

    roots = root_file_fault(document)
    errors = [*check_tls_files(document), *([roots] if roots else [])]
    if errors:
        raise ConfigErrors(errors)
