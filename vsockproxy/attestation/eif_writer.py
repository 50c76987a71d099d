"""Writes an enclave image file: the same inputs make the same bytes.

The checksum is in the header and over everything behind it, so it is known last: `EifWriter` gives
the bytes in order with zeros in its place, and the four bytes at the end.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from vsockproxy import __version__
from vsockproxy.attestation.eif import (
    CRC_OFFSET,
    HEADER_BYTES,
    MAX_SECTIONS,
    Architecture,
    Header,
    Measurements,
    Measuring,
    Section,
    SectionKind,
)
from vsockproxy.errors import VsockproxyError

__all__ = ("MAX_CMDLINE_BYTES", "MAX_RAMDISKS", "EifWriter", "UnusableInput", "write_metadata")

MAX_CMDLINE_BYTES: Final = 2047
"""Linux keeps COMMAND_LINE_SIZE bytes, on both architectures 2048 with the last a zero."""

MAX_RAMDISKS: Final = MAX_SECTIONS - 3
"""Beside kernel, command line and metadata."""

BUILD_TOOL: Final = "vsockproxy"

_TEXTS: Final = ("ImageName", "ImageVersion")
_BUILD_TEXTS: Final = (
    "BuildTime",
    "BuildTool",
    "BuildToolVersion",
    "OperatingSystem",
    "KernelVersion",
)
_FREE: Final = ("DockerInfo", "CustomMetadata")


class UnusableInput(VsockproxyError):
    """An image cannot be made of this."""


def write_metadata(given: Mapping[str, object]) -> bytes:
    """The metadata section: what is given, and what AWS's tools need beside it.

    They read every text of `BuildMetadata` and refuse an image that lacks one, so what nobody says
    is an empty text; in particular no time, so that the same inputs make the same bytes.

    Args:
        given: an object of JSON with these names, or some of them.

    Raises:
        UnusableInput: a name that there is not, or something else than a text where one belongs.
    """
    build = given.get("BuildMetadata", {})
    if not isinstance(build, Mapping):
        raise UnusableInput("metadata: BuildMetadata is no object of JSON")
    _demand_known(given, (*_TEXTS, "BuildMetadata", *_FREE), _TEXTS, "")
    _demand_known(build, _BUILD_TEXTS, _BUILD_TEXTS, "BuildMetadata.")
    ours = {"BuildTool": BUILD_TOOL, "BuildToolVersion": __version__}
    metadata = {
        **{name: given.get(name, "") for name in _TEXTS},
        "BuildMetadata": {name: build.get(name, ours.get(name, "")) for name in _BUILD_TEXTS},
        **{name: given.get(name, {}) for name in _FREE},
    }
    return json.dumps(metadata, separators=(",", ":")).encode("ascii")


def _demand_known(
    given: Mapping[str, object], known: Sequence[str], texts: Sequence[str], path: str
) -> None:
    for name, value in given.items():
        if name not in known:
            raise UnusableInput(
                f"metadata: there is no {path}{name}: names of your own go into CustomMetadata"
            )
        if name in texts and not isinstance(value, str):
            raise UnusableInput(f"metadata: {path}{name} is no text")


class EifWriter:
    """Gives the bytes of a file in order.

    Use `begin`, then for each section of `sections` `section_header` and `data` until all of it is
    there, then `finish`.

    Args:
        architecture: of the kernel.
        kernel_bytes: its size.
        cmdline: the command line of the kernel.
        metadata: the section that `write_metadata` gives.
        ramdisks_bytes: the size of each, in order.

    Raises:
        UnusableInput: one of them cannot be.
    """

    def __init__(
        self,
        architecture: Architecture,
        kernel_bytes: int,
        cmdline: bytes,
        metadata: bytes,
        ramdisks_bytes: Sequence[int],
    ) -> None:
        if not 1 <= len(ramdisks_bytes) <= MAX_RAMDISKS:
            raise UnusableInput(f"{len(ramdisks_bytes)} ramdisks; 1 to {MAX_RAMDISKS} can be")
        if len(cmdline) > MAX_CMDLINE_BYTES:
            raise UnusableInput(
                f"a command line of {len(cmdline)} bytes; the kernel takes {MAX_CMDLINE_BYTES}"
            )
        if b"\x00" in cmdline or b"\n" in cmdline:
            raise UnusableInput("the command line is more than one line")
        sizes = [
            (SectionKind.KERNEL, kernel_bytes),
            (SectionKind.CMDLINE, len(cmdline)),
            (SectionKind.METADATA, len(metadata)),
            *((SectionKind.RAMDISK, size_bytes) for size_bytes in ramdisks_bytes),
        ]
        self.sections: list[Section] = []
        """What `data` is to be given, in this order."""
        offset = HEADER_BYTES
        for kind, size_bytes in sizes:
            if not size_bytes and kind is not SectionKind.CMDLINE:
                raise UnusableInput(f"a {kind} without a byte")
            self.sections.append(Section(kind, offset, size_bytes))
            offset = self.sections[-1].end
        self._header = Header(
            architecture, tuple((each.offset, each.size_bytes) for each in self.sections)
        ).pack()
        self._crc32 = zlib.crc32(self._header[:CRC_OFFSET])
        self._measuring = Measuring()
        self._ramdisks = 0

    def begin(self) -> bytes:
        """The header, with zeros for the checksum."""
        return self._header

    def section_header(self, section: Section) -> bytes:
        """What comes before the data of a section."""
        data = section.pack_header()
        self._crc32 = zlib.crc32(data, self._crc32)
        if section.kind is SectionKind.RAMDISK:
            self._ramdisks += 1
        return data

    def data(self, section: Section, data: bytes | memoryview) -> None:
        """Count in the next bytes of a section, which follow as they are."""
        self._crc32 = zlib.crc32(data, self._crc32)
        self._measuring.update(section.kind, self._ramdisks - 1, data)

    def finish(self) -> tuple[bytes, Measurements]:
        """The four bytes that belong at `CRC_OFFSET`, and the registers."""
        return self._crc32.to_bytes(4, "big"), self._measuring.finish(None)
