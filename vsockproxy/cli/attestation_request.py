"""`vsockproxy attestation request`: a document of this enclave, from its module."""

import base64
import re
import sys
from pathlib import Path
from typing import Final

import click

__all__ = ("request",)

EXIT_FAILED: Final = 1

_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*", re.IGNORECASE)


def _data(context: click.Context, option: click.Parameter, text: str | None) -> bytes | None:
    """The bytes of an option: HEX, or what a file holds; a click callback."""
    del context, option
    if text is None:
        return None
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    from vsockproxy.attestation.nsm_messages import MAX_FIELD_BYTES

    try:
        with open(text, "rb") as file:
            data = file.read(MAX_FIELD_BYTES + 1)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise click.BadParameter(
            f"{text!r:.100} is no hex, and no file that can be read: {cause}"
        ) from None
    if len(data) > MAX_FIELD_BYTES:
        raise click.BadParameter(f"{text} holds more than {MAX_FIELD_BYTES} bytes")
    return data


_HEX_OR_FILE: Final = "HEX|FILE"


@click.command("request")
@click.option(
    "--user-data",
    metavar=_HEX_OR_FILE,
    callback=_data,
    show_default="left out",
    help="Stands in the document: up to 1024 bytes. Example: --user-data 6f6b",
)
@click.option(
    "--nonce",
    metavar=_HEX_OR_FILE,
    callback=_data,
    show_default="left out",
    help="Stands in the document: what who will verify it has chosen. "
    "Example: --nonce 5f1c2d0a9be37786",
)
@click.option(
    "--public-key",
    metavar=_HEX_OR_FILE,
    callback=_data,
    show_default="left out",
    help="Stands in the document: a key that others are to encrypt with, in DER. "
    "Example: --public-key ./key.der",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    show_default="standard output",
    help="Where it is written to. Example: --output document.cbor",
)
def request(
    user_data: bytes | None, nonce: bytes | None, public_key: bytes | None, output: Path | None
) -> None:
    """Ask the NSM for a document, inside an enclave.

    The Nitro Secure Module is /dev/nsm, or what VSOCKPROXY_NSM names. Values are digits in hex, or
    else the name of a file with the bytes (./NAME where a name has only such digits). The document
    is written as the module gave it (CBOR), in base64 where standard output is a terminal.

    Exits with 0 if there is a document, with 1 if the module gives none, with 2 if an argument
    cannot be used.
    """
    from vsockproxy.attestation.nsm_errors import NsmError, NsmMissing, NsmRequestError
    from vsockproxy.client.blocking import attestation_document
    from vsockproxy.nsm_device import Nsm, nsm_location
    from vsockproxy.nsm_locations import DEVELOPMENT_HINT

    nsm = Nsm(nsm_location())
    try:
        document = attestation_document(
            user_data=user_data, nonce=nonce, public_key=public_key, device=nsm.location
        )
    except NsmRequestError as error:
        raise click.UsageError(str(error)) from None
    except NsmError as error:
        hint = f": {DEVELOPMENT_HINT}" if isinstance(error, NsmMissing) else ""
        click.echo(f"no document: {error}{hint}", err=True)
        sys.exit(EXIT_FAILED)
    if nsm.is_software:
        text = f"{nsm.location} is a software NSM: the document proves nothing"
        click.echo(f"warning: {text}", err=True)
    try:
        if output is not None:
            output.write_bytes(document)
        elif sys.stdout.isatty():
            click.echo(base64.b64encode(document))
        else:
            sys.stdout.buffer.write(document)
    except OSError as error:
        if output is None:
            raise click.FileError("standard output", error.strerror) from None
        text = f"{output} cannot be written: {error.strerror}"
        raise click.BadParameter(text, param_hint="--output") from None
