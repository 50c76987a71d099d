"""Reads an enclave image file as it comes, in pieces of any size, and measures it.

It is never whole in memory: what is kept is a header, or a signature section, at a time.
"""

import zlib
from dataclasses import dataclass
from typing import Final

from vsockproxy.attestation.eif import (
    CRC_OFFSET,
    HEADER_BYTES,
    SECTION_HEADER_BYTES,
    Architecture,
    EifRefused,
    Header,
    Measurements,
    Measuring,
    Section,
    SectionKind,
)
from vsockproxy.attestation.eif_signature import (
    MAX_SIGNATURE_BYTES,
    EifSignature,
    parse_signature,
)

__all__ = ("EifImage", "EifReader")

_ONCE: Final = frozenset(SectionKind) - {SectionKind.RAMDISK}


@dataclass(frozen=True, slots=True)
class EifImage:
    """A whole file, whose checksum is right.

    Args:
        version: of the format.
        architecture: of the kernel.
        crc32: the checksum.
        sections: in the order of the file.
        measurements: the registers.
        signature: read, not verified; None without one.
    """

    version: int
    architecture: Architecture
    crc32: int
    sections: tuple[Section, ...]
    measurements: Measurements
    signature: EifSignature | None


class EifReader:
    """Takes a file piece by piece.

    Call `receive` with its bytes in order, then `finish`.
    """

    def __init__(self) -> None:
        self._position = 0
        self._kept = bytearray()
        self._header: Header | None = None
        self._crc32 = 0
        self._sections: list[Section] = []
        self._left_bytes: int | None = None
        """Of the section's data; None while its header is read."""
        self._ramdisks = 0
        self._signature: EifSignature | None = None
        self._measuring = Measuring()

    def receive(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            EifRefused: they cannot belong to an enclave image file.
        """
        view = memoryview(data)
        while view:
            view = view[self._take(view) :]

    def finish(self) -> EifImage:
        """There are no more bytes.

        Raises:
            EifRefused: the file ends too soon, lacks a section, or its checksum is wrong.
        """
        header = self._header
        if header is None:
            raise EifRefused(self._position, f"it ends within the {HEADER_BYTES} bytes of a header")
        if self._left_bytes is not None or len(self._sections) < len(header.places):
            raise EifRefused(self._position, f"it ends within {self._where(header)}")
        kinds = {section.kind for section in self._sections}
        for kind in (SectionKind.KERNEL, SectionKind.CMDLINE):
            if kind not in kinds:
                raise EifRefused(self._position, f"there is no {kind} section")
        if self._crc32 != header.crc32:
            raise EifRefused(
                CRC_OFFSET,
                f"the checksum is {header.crc32:08x}, of the file's bytes {self._crc32:08x}: "
                "it is damaged",
            )
        signature = self._signature
        return EifImage(
            header.version,
            header.architecture,
            header.crc32,
            tuple(self._sections),
            self._measuring.finish(None if signature is None else signature.certificate),
            signature,
        )

    def _take(self, view: memoryview) -> int:
        """Take some of `view`; how many bytes."""
        header = self._header
        if header is None:
            taken = self._keep(view, HEADER_BYTES)
            if len(self._kept) == HEADER_BYTES:
                self._header = Header.parse(bytes(self._kept))
                self._crc32 = zlib.crc32(self._kept[:CRC_OFFSET])
                self._kept.clear()
        elif self._left_bytes is None:
            if len(self._sections) == len(header.places):
                raise EifRefused(self._position, "bytes after the last section")
            taken = self._keep(view, SECTION_HEADER_BYTES)
            if len(self._kept) == SECTION_HEADER_BYTES:
                self._crc32 = zlib.crc32(self._kept, self._crc32)
                data = bytes(self._kept)
                self._kept.clear()
                self._begin_section(header, data)
        else:
            taken = self._take_data(view, self._left_bytes)
        self._position += taken
        return taken

    def _keep(self, view: memoryview, size_bytes: int) -> int:
        taken = min(len(view), size_bytes - len(self._kept))
        self._kept += view[:taken]
        return taken

    def _begin_section(self, header: Header, data: bytes) -> None:
        number = len(self._sections)
        offset, size_bytes = header.places[number]
        section = Section.parse_header(data, offset)
        if section.size_bytes != size_bytes:
            raise EifRefused(
                offset,
                f"section {number} has {section.size_bytes} bytes; the table says {size_bytes}",
            )
        kinds = [each.kind for each in self._sections]
        if section.kind in _ONCE and section.kind in kinds:
            raise EifRefused(offset, f"a second {section.kind} section")
        if section.kind is SectionKind.RAMDISK:
            if SectionKind.KERNEL not in kinds:
                raise EifRefused(offset, "a ramdisk before the kernel")
            self._ramdisks += 1
        if section.kind is SectionKind.SIGNATURE and size_bytes > MAX_SIGNATURE_BYTES:
            raise EifRefused(
                offset, f"a signature section of {size_bytes} bytes, over {MAX_SIGNATURE_BYTES}"
            )
        self._sections.append(section)
        self._left_bytes = size_bytes
        self._end_data(section)

    def _take_data(self, view: memoryview, left_bytes: int) -> int:
        section = self._sections[-1]
        taken = min(len(view), left_bytes)
        piece = view[:taken]
        self._crc32 = zlib.crc32(piece, self._crc32)
        if section.kind is SectionKind.SIGNATURE:
            self._kept += piece
        else:
            self._measuring.update(section.kind, self._ramdisks - 1, piece)
        self._left_bytes = left_bytes - taken
        self._end_data(section)
        return taken

    def _end_data(self, section: Section) -> None:
        """Go on to the next section, if all of this one is here."""
        if self._left_bytes == 0:
            self._left_bytes = None
            if section.kind is SectionKind.SIGNATURE:
                self._signature = parse_signature(bytes(self._kept), section.offset)
                self._kept.clear()

    def _where(self, header: Header) -> str:
        number = len(self._sections)
        if self._left_bytes is None:
            return f"the header of section {number} of {len(header.places)}"
        section = self._sections[-1]
        return f"section {number - 1} ({section.kind}): {self._left_bytes} bytes are missing"
