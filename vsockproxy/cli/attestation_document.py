"""`vsockproxy attestation show` and `verify`: a document in a file, for eyes or for a decision."""

import binascii
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, Final, NoReturn, Protocol

import click

__all__ = (
    "Unusable",
    "allow_debug_option",
    "check_extra",
    "end_refused",
    "json_option",
    "max_age_option",
    "parse_pcrs",
    "pcrs_option",
    "print_document",
    "root_option",
    "show",
    "trusted_roots",
    "verify",
    "warn_of_software",
)

EXIT_REFUSED = 1

_Command = Callable[..., Any]

_MOST_FILE_BYTES: Final = 64 * 1024
"""More than the longest document in base64; of a file with more, no more is read."""
_MOST_ROOTS_BYTES: Final = 1024 * 1024

_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+", re.IGNORECASE)
_PCR: Final = re.compile(r"([0-9]{1,2})=(.+)", re.DOTALL)
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]+={0,2}")
_HEX_DIGITS: Final = re.compile(rb"[0-9A-Fa-f\s]+")
"""Base64 by their looks, but no document in base64 has no other characters."""

_IN_FIRST_LINE: Final = frozenset({"verified", "reason"})
_OF_BYTES: Final = frozenset({"public_key", "user_data", "nonce"})
_FIELDS: Final = ("module_id", "timestamp", "digest", "public_key", "user_data", "nonce")


class Unusable(click.ClickException):
    """What an option names cannot be used, though the command line is right: one line, status 2."""

    exit_code = 2


class Refusal(Protocol):
    """What a refusal says; the classes load `cryptography`, so they are not named here."""

    @property
    def reason(self) -> str:
        """A slug."""

    @property
    def text(self) -> str:
        """One line for a person."""


def _hex(context: click.Context, option: click.Parameter, text: str | None) -> bytes | None:
    """The bytes of an option in hex; a click callback."""
    del context, option
    if text is None:
        return None
    if not _HEX.fullmatch(text):
        raise click.BadParameter(f"{text!r:.100} is no hex: write two digits for each byte")
    return bytes.fromhex(text)


def parse_pcrs(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[int, bytes]:
    """The measurements of the options N=HEX; a click callback."""
    pcrs: dict[int, bytes] = {}
    for text in texts:
        match = _PCR.fullmatch(text)
        value = match and _hex(context, option, match[2])
        if not match or not value:
            raise click.BadParameter(f"{text!r:.100}: write N=HEX, as in 0=3aa0e6…")
        if int(match[1]) in pcrs:
            raise click.BadParameter(f"PCR{int(match[1])} is given twice")
        pcrs[int(match[1])] = value
    return pcrs


def _time(context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    """A moment, in UTC unless it says otherwise; a click callback."""
    del context, option
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r:.100} is no time: write 2026-01-31T12:00:00Z") from None


root_option = click.option(
    "--root",
    metavar="PEM-FILE",
    show_default="AWS's",
    help="The root certificates to trust in place of AWS's. Example: --root test-root.pem",
)

allow_debug_option = click.option(
    "--allow-debug", is_flag=True, help="Take documents of enclaves in debug mode."
)

max_age_option = click.option(
    "--max-age",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    show_default="none",
    help="How far the document's timestamp may be from the time of verification. "
    "Example: --max-age 300",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def pcrs_option(without: str) -> Callable[[_Command], _Command]:
    """The option `--pcr`, for a decorator.

    Args:
        without: what holds where it is not given.
    """
    return click.option(
        "--pcr",
        "pcrs",
        metavar="N=HEX",
        multiple=True,
        callback=parse_pcrs,
        show_default=without,
        help="A measurement that the enclave must have; may be given several times. "
        "Example: --pcr 0=3aa0e6…",
    )


@click.command("show")
@click.argument("file", metavar="FILE|-")
@json_option
def show(file: str, as_json: bool) -> None:
    """Show what an attestation document says, unverified.

    Anybody can write such a document; only `verify` says whether one is genuine. FILE holds it as
    the NSM gave it (CBOR), or in base64; - is standard input.

    Exits with 0, with 1 if it is no document, with 2 if FILE cannot be read.
    """
    check_extra()
    from vsockproxy.attestation.documents import DocumentRefused, parse_unverified

    data = _read_document(file)
    try:
        document = parse_unverified(data)
    except DocumentRefused as error:
        end_refused(error, as_json)
    print_document(
        document.for_display(), as_json, first_line="unverified: anybody may have written this"
    )


@click.command("verify")
@click.argument("file", metavar="FILE|-")
@click.option(
    "--at",
    metavar="ISO-TIME",
    callback=_time,
    show_default="now",
    help="The time at which it has to be valid, UTC unless it says otherwise. "
    "Example: --at 2026-01-31T12:00:00Z",
)
@click.option(
    "--at-document-time",
    is_flag=True,
    help="Verify at the document's own time: proves that it was good then, not that it is fresh.",
)
@root_option
@allow_debug_option
@pcrs_option("any")
@click.option(
    "--nonce",
    metavar="HEX",
    callback=_hex,
    show_default="any",
    help="The nonce that it must hold. Example: --nonce 00112233445566778899aabbccddeeff",
)
@max_age_option
@json_option
def verify(
    file: str,
    at: datetime | None,
    at_document_time: bool,
    root: str | None,
    allow_debug: bool,
    pcrs: Mapping[int, bytes],
    nonce: bytes | None,
    max_age: float | None,
    as_json: bool,
) -> None:
    """Verify an attestation document.

    Its certificates, its signature, and the measurements and nonce that are given. FILE holds it as
    the NSM gave it (CBOR), or in base64; - is standard input.

    Exits with 0 if it is verified, 1 if it is refused, 2 if FILE or an option cannot be used.
    """
    if at is not None and at_document_time:
        raise click.UsageError("--at and --at-document-time are two times: give one")
    if max_age is not None and at_document_time:
        text = "--max-age says nothing with --at-document-time: no document is older than itself"
        click.echo(f"vsockproxy: {text}", err=True)
    check_extra()
    from vsockproxy.attestation.documents import (
        DocumentRefused,
        RequirementError,
        Requirements,
        parse_unverified,
        verify_document,
    )

    try:
        requirements = Requirements(
            roots=trusted_roots(root),
            pcrs=pcrs,
            nonce=nonce,
            max_age_seconds=max_age,
            allow_debug=allow_debug,
        )
    except RequirementError as error:
        raise click.UsageError(str(error)) from None
    data = _read_document(file)
    try:
        if at_document_time:
            at = parse_unverified(data).claimed_time
        document = verify_document(data, requirements, at or datetime.now(UTC))
    except DocumentRefused as error:
        end_refused(error, as_json)
    print_document(document.for_display(), as_json, first_line="verified")
    if as_json:
        return
    click.echo(f"expires_at: {document.expires_at.isoformat()}")
    if document.is_debug:
        click.echo("debug mode: the parent can look into this enclave")
    if not pcrs:
        text = "no --pcr is given: an enclave of anybody's AWS account would do"
        click.echo(f"warning: {text}", err=True)
    warn_of_software(document.module_id)


def check_extra() -> None:
    """One clear line where the library is missing, as in an enclave image without trust."""
    if find_spec("cryptography") is None:
        raise Unusable(
            "this needs cryptography, which is not here: install vsockproxy with its extra, as in "
            "pip install '.[trust]'"
        )


def trusted_roots(file: str | None) -> tuple[bytes, ...]:
    """The certificates that the option --root names, DER; AWS's where it is not given.

    Raises:
        Unusable: there are none, or the file cannot be read.
    """
    from vsockproxy.attestation.documents import AWS_ROOT, RequirementError, read_roots

    if file is None:
        return (AWS_ROOT,)
    try:
        return read_roots(_read_file(file, _MOST_ROOTS_BYTES, "--root: "))
    except RequirementError as error:
        raise Unusable(f"--root {file!r:.100}: {error}") from None


def warn_of_software(module_id: str) -> None:
    """Say on stderr if a document, verified below a test root, is of a software NSM's module."""
    from vsockproxy.attestation.software_nsm import MODULE_ID

    if module_id == MODULE_ID:
        text = "the document is of a software NSM: it proves nothing"
        click.echo(f"warning: {text}", err=True)


def _read_file(file: str, most: int, option: str = "") -> bytes:
    """The beginning of a file: one byte more than `most` at most."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(most + 1)
        with open(file, "rb") as opened:
            return opened.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise Unusable(f"{option}cannot read {file!r}: {reason}") from None


def _read_document(file: str) -> bytes:
    """The bytes of a document, which begin above 0x7f; so what is base64 can be nothing else."""
    content = _read_file(file, _MOST_FILE_BYTES)
    if _BASE64.fullmatch(content.strip()) and not _HEX_DIGITS.fullmatch(content):
        try:
            return binascii.a2b_base64(b"".join(content.split()), strict_mode=True)
        except binascii.Error:
            return content
    return content


def end_refused(error: Refusal, as_json: bool) -> NoReturn:
    """Say why, and nothing that an unverified document says."""
    if as_json:
        nothing = dict.fromkeys(_FIELDS)
        shown = {"verified": False, "reason": error.reason, "text": error.text, **nothing}
        click.echo(json.dumps(shown, indent=2))
    else:
        click.echo(f"refused: {error.reason}: {error.text}")
        if error.reason == "untrusted_root":
            click.echo("for a test root, or one of another partition: --root FILE", err=True)
    sys.exit(EXIT_REFUSED)


def print_document(shown: Mapping[str, object], as_json: bool, *, first_line: str) -> None:
    """Print the fields of a document; as text, registers of zeros together in one line."""
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    click.echo(first_line)
    for name, value in shown.items():
        if isinstance(value, Mapping):
            zeros = [int(index) for index, digits in value.items() if not digits.strip("0")]
            for index, digits in value.items():
                if int(index) not in zeros:
                    click.echo(f"PCR{index}: {digits}")
            if zeros:
                click.echo(f"zeros: {_ranges(zeros)}")
        elif name not in _IN_FIRST_LINE:
            click.echo(f"{name}: {_for_terminal(name, value)}")


def _ranges(indices: Sequence[int]) -> str:
    """Rising numbers of registers, as `PCR3, PCR5-PCR15`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(
        f"PCR{run[0]}" if len(run) == 1 else f"PCR{run[0]}-PCR{run[-1]}" for run in runs
    )


def _for_terminal(name: str, value: object) -> str:
    """A field as text; what would move a cursor or change a colour is escaped."""
    from vsockproxy.attestation.documents import time_of

    if value is None:
        return "none"
    if name == "timestamp" and isinstance(value, int):
        return f"{value} ({time_of(value).isoformat(timespec='milliseconds')})"
    text = str(value)
    if name in _OF_BYTES:
        # What ASCII can print is shown as text as well, as the line of a TLS key.
        said = bytes.fromhex(text).decode("latin-1")
        return f"{text} ({said!r})" if said.isascii() and said.isprintable() and said else text
    return text if text.isprintable() else ascii(text)
