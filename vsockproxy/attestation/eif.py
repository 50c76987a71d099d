"""The enclave image file (EIF): its layout, and what is measured of it.

Everything is big-endian (aws-nitro-enclaves-image-format, README and src/defs/mod.rs): a header of
548 bytes, then sections one after another, each a header of 12 bytes and its data. `eif_reader`
reads such a file, `eif_writer` writes one, `eif_signature` has the signature section.
"""

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from vsockproxy.errors import VsockproxyError

__all__ = (
    "ARCHITECTURES",
    "CRC_OFFSET",
    "EMPTY_PCR",
    "HEADER_BYTES",
    "MAGIC",
    "MAX_SECTIONS",
    "MIN_SECTIONS",
    "NO_RAMDISKS_PCR",
    "PCR_BYTES",
    "SECTION_HEADER_BYTES",
    "VERSION",
    "VERSIONS",
    "Architecture",
    "EifRefused",
    "Header",
    "Measurements",
    "Measuring",
    "Section",
    "SectionKind",
    "extended_pcr",
    "is_kernel",
)

MAGIC: Final = b".eif"

VERSION: Final = 4
"""What is written: version 3 added the signature, version 4 the metadata."""

VERSIONS: Final = (3, VERSION)
"""What is read."""

MIN_SECTIONS: Final = 2
MAX_SECTIONS: Final = 32
"""The tables of the header have as many places."""

HEADER_BYTES: Final = 548
SECTION_HEADER_BYTES: Final = 12

CRC_OFFSET: Final = 0x220
"""Where the CRC-32 is: the last field of the header, over all other bytes of the file."""

PCR_BYTES: Final = 48
"""A SHA-384."""

EMPTY_PCR: Final = bytes(PCR_BYTES)
"""A register that nothing was measured into, as PCR8 of an image without a signature."""

NO_RAMDISKS_PCR: Final = hashlib.sha384(EMPTY_PCR + hashlib.sha384().digest()).digest()
"""PCR2 of every image that has one ramdisk: the hash of nothing, extended into a register."""

_KERNEL_MAGICS: Final = {"x86_64": (0x202, b"HdrS"), "aarch64": (0x38, b"ARM\x64")}
"""Where a kernel says what it is (Linux, Documentation/arch/x86/boot.rst and arm64/booting.rst)."""

DEFAULT_MEMORY_BYTES: Final = 1024 * 1024 * 1024
DEFAULT_CPUS: Final = 2
"""Fields that nothing reads; AWS's tool writes these values."""

_HEADER = struct.Struct(">4sHHQQHH32Q32QII")
_SECTION_HEADER = struct.Struct(">HHQ")

Architecture = Literal["x86_64", "aarch64"]

ARCHITECTURES: Final[tuple[Architecture, ...]] = ("x86_64", "aarch64")
"""By bit 0 of the header's flags."""


class EifRefused(VsockproxyError):
    """These bytes are no enclave image file, or a damaged one.

    Args:
        offset: the place in the file, from its beginning.
        what: what is wrong there.
    """

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"offset {offset}: {what}")
        self.offset = offset
        self.what = what


class SectionKind(IntEnum):
    """What a section holds."""

    KERNEL = 1
    CMDLINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Section:
    """One section.

    Args:
        kind: what it holds.
        offset: of its header in the file.
        size_bytes: of its data.
    """

    kind: SectionKind
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        """The offset of what follows it."""
        return self.offset + SECTION_HEADER_BYTES + self.size_bytes

    def pack_header(self) -> bytes:
        """The 12 bytes in front of its data."""
        return _SECTION_HEADER.pack(self.kind, 0, self.size_bytes)

    @classmethod
    def parse_header(cls, data: bytes, offset: int) -> "Section":
        """Read the 12 bytes that are at `offset`.

        Raises:
            EifRefused: there is no such kind.
        """
        kind, _, size_bytes = _SECTION_HEADER.unpack(data)
        try:
            return cls(SectionKind(kind), offset, size_bytes)
        except ValueError:
            what = f"a section of type {kind}; there are types 1 to {max(SectionKind)}"
            raise EifRefused(offset, what) from None


@dataclass(frozen=True, slots=True)
class Header:
    """The first 548 bytes.

    Args:
        architecture: of the kernel.
        places: offset and size of each section.
        version: of the format.
        crc32: over the file but for these four bytes.
    """

    architecture: Architecture
    places: tuple[tuple[int, int], ...]
    version: int = VERSION
    crc32: int = 0

    def pack(self) -> bytes:
        """The bytes."""
        unused = (0,) * (MAX_SECTIONS - len(self.places))
        return _HEADER.pack(
            MAGIC,
            self.version,
            ARCHITECTURES.index(self.architecture),
            DEFAULT_MEMORY_BYTES,
            DEFAULT_CPUS,
            0,
            len(self.places),
            *(offset for offset, _ in self.places),
            *unused,
            *(size_bytes for _, size_bytes in self.places),
            *unused,
            0,
            self.crc32,
        )

    @classmethod
    def parse(cls, data: bytes) -> "Header":
        """Read 548 bytes.

        Sections have to follow the header, and one another, without a gap: what lay between them
        would not be measured, and readers that go by the table would see another file than those
        that go from section to section.

        Raises:
            EifRefused: they are no header, or their table is no such row.
        """
        magic, version, flags, _, _, _, count, *table, _, crc32 = _HEADER.unpack(data)
        if magic != MAGIC:
            raise EifRefused(0, f"no enclave image file: it begins with {magic!r}, not {MAGIC!r}")
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise EifRefused(4, f"version {version} of the format; {known} are known")
        if not MIN_SECTIONS <= count <= MAX_SECTIONS:
            raise EifRefused(0x1A, f"{count} sections; {MIN_SECTIONS} to {MAX_SECTIONS} can be")
        places = tuple(zip(table[:count], table[MAX_SECTIONS:][:count], strict=True))
        expected = HEADER_BYTES
        for number, (offset, size_bytes) in enumerate(places):
            if offset != expected:
                fault = "overlaps what is before it" if offset < expected else "leaves a gap"
                raise EifRefused(
                    0x1C + 8 * number,
                    f"section {number} at {offset} {fault}: {expected} would follow directly",
                )
            expected += SECTION_HEADER_BYTES + size_bytes
        return cls(ARCHITECTURES[flags & 1], places, version, crc32)


@dataclass(frozen=True, slots=True)
class Measurements:
    """The registers that a file decides.

    Args:
        pcr0: the whole image: kernel, command line and all ramdisks.
        pcr1: kernel, command line and the first ramdisk.
        pcr2: the other ramdisks.
        pcr8: the certificate of the signature; zeros without one.
    """

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes
    pcr8: bytes = EMPTY_PCR

    @property
    def pcrs(self) -> dict[int, bytes]:
        """The registers by number."""
        return {0: self.pcr0, 1: self.pcr1, 2: self.pcr2, 8: self.pcr8}


class Measuring:
    """Measures sections as their data comes, in the order of the file."""

    def __init__(self) -> None:
        self._image = hashlib.sha384()
        self._boot = hashlib.sha384()
        self._application = hashlib.sha384()

    def update(self, kind: SectionKind, ramdisk: int, data: bytes | memoryview) -> None:
        """Take the next bytes of a section.

        Args:
            kind: of the section.
            ramdisk: how many ramdisks came before it.
            data: the bytes.
        """
        if kind in (SectionKind.SIGNATURE, SectionKind.METADATA):
            return
        self._image.update(data)
        is_application = kind is SectionKind.RAMDISK and ramdisk > 0
        (self._application if is_application else self._boot).update(data)

    def finish(self, certificate: bytes | None) -> Measurements:
        """What came of it.

        Args:
            certificate: the one that signed, in DER.
        """
        return Measurements(
            extended_pcr(self._image.digest()),
            extended_pcr(self._boot.digest()),
            extended_pcr(self._application.digest()),
            EMPTY_PCR
            if certificate is None
            else extended_pcr(hashlib.sha384(certificate).digest()),
        )


def extended_pcr(digest: bytes) -> bytes:
    """An empty register, extended once with the SHA-384 of what is measured."""
    return hashlib.sha384(EMPTY_PCR + digest).digest()


def is_kernel(beginning: bytes, architecture: Architecture) -> bool:
    """Whether a file is what the architecture starts: a bzImage, or an Image for aarch64.

    Args:
        beginning: its first bytes, 1 KiB or more if it has so many.
        architecture: of the image.
    """
    offset, magic = _KERNEL_MAGICS[architecture]
    return beginning[offset : offset + len(magic)] == magic
