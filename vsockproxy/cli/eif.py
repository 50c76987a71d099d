"""`vsockproxy eif`: measures and builds enclave image files, without Docker and without root."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import click

from vsockproxy.attestation.eif import (
    ARCHITECTURES,
    CRC_OFFSET,
    Architecture,
    EifRefused,
    Measurements,
    Section,
    is_kernel,
)
from vsockproxy.attestation.eif_reader import EifImage, EifReader
from vsockproxy.attestation.eif_writer import EifWriter, UnusableInput, write_metadata
from vsockproxy.attestation.kms_policy import kms_condition

__all__ = ("command", "write_image")

EXIT_REFUSED: Final = 1
EXIT_UNREADABLE: Final = 2

PIECE_BYTES: Final = 1024 * 1024

MODE: Final = 0o666
"""Of the image, but for what the umask takes away: there is nothing secret in it."""

_KERNEL_HEAD_BYTES: Final = 1024

NOT_VERIFIED: Final = "not verified (pip install 'vsockproxy[trust]')"


@click.group(name="eif")
def command() -> None:
    """Measure and build enclave image files (EIF): no Docker, no root."""


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@command.command(name="measure")
@_json_option
@click.option(
    "--kms-policy",
    "as_policy",
    is_flag=True,
    help="Print the Condition block of a KMS key policy that lets this image in, and no other.",
)
@click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
@click.pass_context
def measure(context: click.Context, as_json: bool, as_policy: bool, file: str) -> None:
    """Print what an image file will measure.

    That is PCR0, PCR1, PCR2 and PCR8 of an enclave of this image. The file's checksum is checked,
    and its signature if it has one (that needs the extra `trust`; without it the output says so).
    PCR8 is all zeros where there is no signature. FILE may be - for standard input.

    Exits with 0 if the file is good, with 1 if it is no EIF, damaged or wrongly signed, with 2 if
    it cannot be read.
    """
    if as_json and as_policy:
        raise click.UsageError("--kms-policy prints JSON already: leave --json out")
    reader = EifReader()
    try:
        with _open(file) as source:
            while piece := source.read(PIECE_BYTES):
                reader.receive(piece)
        image = reader.finish()
    except OSError as error:
        click.echo(f"{file}: {error.strerror or error}", err=True)
        context.exit(EXIT_UNREADABLE)
    except EifRefused as error:
        click.echo(f"{file}: {error}", err=True)
        context.exit(EXIT_REFUSED)
    verdict, fault = _verify(image)
    if fault is not None:
        click.echo(f"{file}: the signature is refused: {fault}", err=True)
        context.exit(EXIT_REFUSED)
    if as_policy:
        _print_json(kms_condition(image.measurements))
        if verdict == NOT_VERIFIED:
            click.echo(f"warning: signature {verdict}: PCR8 is what the file says", err=True)
    elif as_json:
        _print_json(
            {
                "pcrs": _hexadecimal(image.measurements),
                "signature": verdict,
                "version": image.version,
                "architecture": image.architecture,
                "crc32": f"{image.crc32:08x}",
                "sections": [_describe(section) for section in image.sections],
            }
        )
    else:
        _print_registers(image.measurements)
        click.echo(f"signature: {verdict}")


def _verify(image: EifImage) -> tuple[str, str | None]:
    """What to say of the signature; and what is wrong with it, if that is known."""
    if image.signature is None:
        return "none", None
    try:
        from vsockproxy.attestation.eif_verification import SignatureRefused, verify_signature
    except ImportError:
        return NOT_VERIFIED, None
    try:
        verify_signature(image)
    except SignatureRefused as error:
        return "refused", str(error)
    return "verified", None


@command.command(name="build")
@click.option(
    "--kernel",
    metavar="FILE",
    type=click.Path(),
    required=True,
    help="The kernel: a bzImage, or an Image for aarch64. Example: --kernel bzImage",
)
@click.option(
    "--cmdline",
    metavar="TEXT|@FILE",
    required=True,
    help="The kernel's command line, or @ and a file that holds it. "
    "Example: --cmdline 'reboot=k panic=30 console=ttyS0'",
)
@click.option(
    "--ramdisk",
    "ramdisks",
    metavar="FILE",
    type=click.Path(),
    multiple=True,
    required=True,
    help="A ramdisk, a cpio archive that may be compressed; one or more, in this order. "
    "Example: --ramdisk init.cpio --ramdisk app.cpio.gz",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(),
    required=True,
    help="Where the image is written; replaced once it is whole. Example: --output web.eif",
)
@click.option(
    "--metadata",
    metavar="JSON|@FILE",
    default="{}",
    show_default=True,
    help="ImageName, ImageVersion, BuildMetadata, DockerInfo, CustomMetadata, as AWS's tools read "
    'them; it is not measured. Example: --metadata \'{"ImageName": "web"}\'',
)
@click.option(
    "--arch",
    "architecture",
    metavar="x86_64|aarch64",
    type=click.Choice(ARCHITECTURES),
    default="x86_64",
    show_default=True,
    help="The architecture of the kernel. Example: --arch aarch64",
)
@_json_option
@click.pass_context
def build(
    context: click.Context,
    kernel: str,
    cmdline: str,
    ramdisks: Sequence[str],
    output: str,
    metadata: str,
    architecture: Architecture,
    as_json: bool,
) -> None:
    """Build an image file, and print its PCRs.

    It is made of a kernel, its command line and ramdisks. The same inputs make the same bytes: no
    clock is asked, and a BuildTime is there only if it is given in --metadata.

    Exits with 0 if it is built, with 1 if it cannot be made of this, with 2 if a file cannot be
    read or written.
    """
    try:
        with ExitStack() as stack:
            named = [("--kernel", kernel), *(("--ramdisk", name) for name in ramdisks)]
            files = [stack.enter_context(_open_option(*each)) for each in named]
            sizes = [os.fstat(file.fileno()).st_size for file in files]
            line = _text_or_file("--cmdline", cmdline)
            described = write_metadata(_json_object(_text_or_file("--metadata", metadata)))
            writer = EifWriter(architecture, sizes[0], line, described, sizes[1:])
            is_started = is_kernel(files[0].peek(_KERNEL_HEAD_BYTES), architecture)
            sources: list[BinaryIO] = [files[0], BytesIO(line), BytesIO(described), *files[1:]]
            with _replacing(output) as target:
                measurements = write_image(writer, sources, target)
    except OSError as error:
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        click.echo(f"{name}{error.strerror or error}", err=True)
        context.exit(EXIT_UNREADABLE)
    except UnusableInput as error:
        click.echo(str(error), err=True)
        context.exit(EXIT_REFUSED)
    if not is_started:
        wanted = "bzImage" if architecture == "x86_64" else "Image of aarch64"
        text = f"--kernel {kernel} is no {wanted}: an enclave may not start from it"
        click.echo(f"warning: {text}", err=True)
    if as_json:
        _print_json({"pcrs": _hexadecimal(measurements), "architecture": architecture})
    else:
        _print_registers(measurements)


def write_image(writer: EifWriter, sources: Sequence[BinaryIO], target: IO[bytes]) -> Measurements:
    """Copy what the sections hold, in pieces, and say what is measured.

    Args:
        writer: knows the sections.
        sources: one for each section.
        target: empty, and one that seeks.

    Raises:
        UnusableInput: a source has other than the bytes that `writer` was told.
        OSError: reading or writing failed.
    """
    target.write(writer.begin())
    for section, source in zip(writer.sections, sources, strict=True):
        target.write(writer.section_header(section))
        left_bytes = section.size_bytes
        while left_bytes and (piece := source.read(min(left_bytes, PIECE_BYTES))):
            writer.data(section, piece)
            target.write(piece)
            left_bytes -= len(piece)
        if left_bytes or source.read(1):
            raise UnusableInput(f"a {section.kind} changed its size while it was read")
    crc32, measurements = writer.finish()
    target.seek(CRC_OFFSET)
    target.write(crc32)
    return measurements


@contextmanager
def _replacing(name: str) -> Iterator[IO[bytes]]:
    """A file that takes the place of `name` when all is written, and else is not left behind."""
    path = Path(name)
    with _named("--output", name):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "wb") as file:
            yield file
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), MODE & ~umask)
        with _named("--output", name):
            Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


@contextmanager
def _named(option: str, name: str) -> Iterator[None]:
    """Let a failure name the option and what was given there, and no file of ours."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{option} {name}") from error


def _open_option(option: str, name: str) -> BufferedReader:
    with _named(option, name):
        return Path(name).open("rb")


def _text_or_file(option: str, text: str) -> bytes:
    """The text, or what is in @FILE without the newline at its end."""
    if text.startswith("@"):
        with _open_option(option, text[1:]) as file:
            return file.read().removesuffix(b"\n")
    return os.fsencode(text)


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"metadata: no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnusableInput("metadata: no object of JSON")
    return content


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as source:
        yield source


def _hexadecimal(measurements: Measurements) -> dict[str, str]:
    return {str(number): value.hex() for number, value in measurements.pcrs.items()}


def _describe(section: Section) -> dict[str, str | int]:
    return {"kind": str(section.kind), "offset": section.offset, "size": section.size_bytes}


def _print_registers(measurements: Measurements) -> None:
    for number, value in measurements.pcrs.items():
        click.echo(f"PCR{number} {value.hex()}")


def _print_json(content: object) -> None:
    click.echo(json.dumps(content, indent=2))
