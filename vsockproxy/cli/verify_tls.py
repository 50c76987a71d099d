"""`vsockproxy attestation verify-tls`: does TLS with a server end in the enclave that it should."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from vsockproxy.addresses import AddressError, normalise_host, parse_destination
from vsockproxy.cli.attestation_document import (
    Unusable,
    allow_debug_option,
    check_extra,
    end_refused,
    json_option,
    max_age_option,
    pcrs_option,
    print_document,
    root_option,
    trusted_roots,
    warn_of_software,
)

if TYPE_CHECKING:
    import ssl

__all__ = ("verify_tls",)


def _host(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """A host in normal form; a click callback."""
    del context, option
    if text is None:
        return None
    try:
        return normalise_host(text).text
    except AddressError as error:
        raise click.BadParameter(str(error)) from None


@click.command("verify-tls")
@click.argument("address", metavar="HOST:PORT")
@pcrs_option("none, which is refused")
@click.option(
    "--any-pcr",
    is_flag=True,
    help="Take any enclave, as anybody with an AWS account can start one: proves next to nothing.",
)
@root_option
@allow_debug_option
@click.option(
    "--allow-image-key",
    is_flag=True,
    help="Take a key that is a file of the image, which the parent can read.",
)
@max_age_option
@click.option(
    "--server-name",
    metavar="NAME",
    callback=_host,
    show_default="HOST",
    help="The name to ask the server for. Example: --server-name api.example.com",
)
@click.option(
    "--ca",
    metavar="PEM-FILE",
    show_default="none",
    help="Demand a certificate of these authorities for the name, too. Example: --ca root.pem",
)
@click.option(
    "--client-cert",
    metavar="PEM-FILE",
    show_default="none",
    help="A certificate and its key, for a server that wants one. Example: --client-cert me.pem",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=600),
    default=10.0,
    metavar="SECONDS",
    show_default=True,
    help="For the connection, the handshake and the document. Example: --timeout 3",
)
@json_option
def verify_tls(
    address: str,
    pcrs: Mapping[int, bytes],
    any_pcr: bool,
    root: str | None,
    allow_debug: bool,
    allow_image_key: bool,
    max_age: float | None,
    server_name: str | None,
    ca: str | None,
    client_cert: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Verify in which enclave TLS with a server ends.

    Connects, asks for an attestation document with a new nonce, and verifies that this document
    binds the key of this very connection. No authority is asked about the certificate, unless --ca
    names some: the document is what counts.

    Exits with 0 if it is verified, 1 if it is refused, 2 if an option cannot be used or there is no
    connection.
    """
    if not pcrs and not any_pcr:
        raise click.UsageError(
            "without --pcr every enclave would do, an attacker's too: give the measurements of "
            "yours, as --pcr 0=HEX, or --any-pcr"
        )
    if pcrs and any_pcr:
        raise click.UsageError("--pcr and --any-pcr contradict each other: give one")
    try:
        destination = parse_destination(address)
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint="HOST:PORT") from None
    check_extra()
    from vsockproxy.attestation.documents import (
        DocumentRefused,
        RequirementError,
        Requirements,
    )
    from vsockproxy.attestation.tls_verification import ConnectionRefused
    from vsockproxy.attested_tls import Unreachable, connect_attested

    try:
        requirements = Requirements(
            roots=trusted_roots(root),
            pcrs=pcrs,
            max_age_seconds=max_age,
            allow_debug=allow_debug,
        )
    except RequirementError as error:
        raise click.UsageError(str(error)) from None
    context = _context(ca, client_cert)
    try:
        connection = connect_attested(
            destination.host.text,
            destination.port,
            requirements,
            server_name=server_name,
            context=context,
            allow_image_key=allow_image_key,
            seconds=timeout,
        )
    except Unreachable as error:
        raise Unusable(str(error)) from None
    except (ConnectionRefused, DocumentRefused) as error:
        end_refused(error, as_json)
    connection.close()
    shown = connection.document.for_display()
    shown["server_key_sha256"] = hashlib.sha256(connection.public_key).hexdigest()
    shown["expires_at"] = connection.document.expires_at.isoformat()
    print_document(shown, as_json, first_line="verified")
    if not as_json:
        warn_of_software(connection.document.module_id)


def _context(ca: str | None, client_cert: str | None) -> "ssl.SSLContext":
    """What to connect with; a file that cannot be used is named with its option."""
    from vsockproxy.attested_tls import client_context
    from vsockproxy.tls_files import TlsFileError

    try:
        client_context(ca)
    except TlsFileError as error:
        raise Unusable(f"--ca: {error}") from None
    try:
        return client_context(ca, client_cert)
    except TlsFileError as error:
        raise Unusable(f"--client-cert: {error}") from None
