import base64
import ssl
import tracemalloc
from collections.abc import Sequence

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.eif_files import (
    CMDLINE,
    EMPTY_PCR2,
    KERNEL,
    METADATA,
    PLAIN,
    RAMDISK,
    SIGNATURE,
    Sections,
    Signer,
    make_eif,
    pcrs_of,
    read_eif,
    signature_section,
)
from vsockproxy.attestation.eif import (
    CRC_OFFSET,
    Architecture,
    EifRefused,
    SectionKind,
    is_kernel,
)
from vsockproxy.attestation.eif_reader import EifImage, EifReader
from vsockproxy.attestation.eif_signature import MAX_SIGNATURE_BYTES
from vsockproxy.attestation.eif_verification import SignatureRefused, verify_signature
from vsockproxy.attestation.eif_writer import (
    MAX_CMDLINE_BYTES,
    MAX_RAMDISKS,
    EifWriter,
    UnusableInput,
    write_metadata,
)
from vsockproxy.attestation.kms_policy import kms_condition

SIGNER = Signer()
SIGNED: Sections = (*PLAIN, (SIGNATURE, SIGNER.section()))
END = len(make_eif())
"""Where a further section of `PLAIN` begins."""


def read(data: bytes, piece_bytes: int = 1 << 20) -> EifImage:
    reader = EifReader()
    for start in range(0, len(data), piece_bytes):
        reader.receive(data[start : start + piece_bytes])
    return reader.finish()


def build(sections: Sections) -> bytes:
    """What the writer makes of a kernel, a command line, metadata and ramdisks."""
    contents = [data for _, data in sections]
    kernel, cmdline, metadata, *ramdisks = contents
    writer = EifWriter(
        "x86_64", len(kernel), cmdline, metadata, [len(ramdisk) for ramdisk in ramdisks]
    )
    data = bytearray(writer.begin())
    for section, content in zip(writer.sections, contents, strict=True):
        data += writer.section_header(section) + content
        writer.data(section, content)
    crc32, _ = writer.finish()
    data[CRC_OFFSET : CRC_OFFSET + 4] = crc32
    return bytes(data)


# ---------------------------------------------------------------------------------------- reading


def test_an_image_is_read_and_measured() -> None:
    image = read(make_eif())

    assert image.measurements.pcrs == pcrs_of(PLAIN)
    assert (image.version, image.architecture, image.signature) == (4, "x86_64", None)
    assert [section.kind for section in image.sections] == [kind for kind, _ in PLAIN]
    assert [section.size_bytes for section in image.sections] == [len(data) for _, data in PLAIN]
    assert image.sections[0].offset == 548


IMAGES: dict[str, tuple[bytes, Sections]] = {
    "one ramdisk": (make_eif(PLAIN[:4]), PLAIN[:4]),
    "no ramdisk": (make_eif(PLAIN[:2]), PLAIN[:2]),
    "an empty command line": (make_eif(((KERNEL, b"k"), (CMDLINE, b""))), ((KERNEL, b"k"),)),
    "the command line behind the ramdisk": (
        make_eif(((KERNEL, b"k"), (RAMDISK, b"r"), (CMDLINE, b"c"))),
        ((KERNEL, b"k"), (RAMDISK, b"r"), (CMDLINE, b"c")),
    ),
    "as many sections as there can be": (
        make_eif((*PLAIN[:2], *((RAMDISK, bytes([n])) for n in range(30)))),
        (*PLAIN[:2], *((RAMDISK, bytes([n])) for n in range(30))),
    ),
    "version 3": (make_eif(version=3), PLAIN),
    "for aarch64": (make_eif(flags=1), PLAIN),
}


@pytest.mark.parametrize("case", IMAGES)
def test_unusual_images_are_measured(case: str) -> None:
    data, sections = IMAGES[case]
    expected = pcrs_of(sections)
    if case == "the command line behind the ramdisk":
        expected[1] = pcrs_of(((KERNEL, b"krc"),))[1]  # in the order of the file

    assert read(data).measurements.pcrs == expected


def test_one_ramdisk_leaves_the_known_pcr2() -> None:
    assert read(make_eif(PLAIN[:4])).measurements.pcr2.hex() == EMPTY_PCR2


def test_the_architecture_is_a_flag() -> None:
    assert read(make_eif(flags=1)).architecture == "aarch64"


@pytest.mark.parametrize("piece_bytes", [1, 7, 12, 548, 549])
def test_pieces_of_any_size_are_the_same_image(piece_bytes: int) -> None:
    assert read(make_eif(SIGNED), piece_bytes) == read(make_eif(SIGNED))


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 0, "it ends within the 548 bytes of a header"),
    "another file": (b"\x7fELF" + bytes(600), 0, "begins with b'\\x7fELF', not b'.eif'"),
    "an older version": (make_eif(version=2), 4, "version 2 of the format; 3 and 4 are known"),
    "a newer version": (make_eif(version=5), 4, "version 5 of the format"),
    "one section": (make_eif(count=1), 0x1A, "1 sections; 2 to 32 can be"),
    "too many sections": (make_eif(count=33), 0x1A, "33 sections; 2 to 32 can be"),
    "sections that overlap": (
        make_eif(offsets={1: 600}),
        0x24,
        "section 1 at 600 overlaps what is before it: 860 would follow directly",
    ),
    "a section within the header": (make_eif(offsets={0: 0}), 0x1C, "section 0 at 0 overlaps"),
    "a gap": (make_eif(offsets={2: 1000}), 0x2C, "section 2 at 1000 leaves a gap: 885 would"),
    "a size beyond the file": (
        make_eif(sizes={4: 2**63}),
        END - 132,
        f"section 4 has 120 bytes; the table says {2**63}",
    ),
    "a table with other sizes": (
        make_eif(sizes={0: 301}, offsets={1: 861, 2: 886, 3: 900, 4: 1032}),
        548,
        "section 0 has 300 bytes; the table says 301",
    ),
    "a type that is none": (make_eif(((0, b"x"), *PLAIN)), 548, "a section of type 0"),
    "a type beyond": (make_eif((*PLAIN, (6, b"x"))), END, "a section of type 6"),
    "two kernels": (make_eif((PLAIN[0], *PLAIN)), 860, "a second kernel section"),
    "two command lines": (make_eif((*PLAIN, PLAIN[1])), END, "a second cmdline section"),
    "two metadata": (make_eif((*PLAIN, PLAIN[2])), END, "a second metadata section"),
    "two signatures": (
        make_eif((*SIGNED, SIGNED[-1])),
        len(make_eif(SIGNED)),
        "a second signature section",
    ),
    "a ramdisk first": (make_eif((PLAIN[3], *PLAIN)), 548, "a ramdisk before the kernel"),
    "no kernel": (make_eif(PLAIN[1:3]), 587, "there is no kernel section"),
    "no command line": (make_eif((PLAIN[0], *PLAIN[2:])), END - 25, "there is no cmdline section"),
    "bytes at the end": (make_eif(tail=b"!"), END, "bytes after the last section"),
    "a wrong checksum": (make_eif(crc=0), CRC_OFFSET, "the checksum is 00000000, of the file's"),
    "a long signature": (
        make_eif((*PLAIN, (SIGNATURE, bytes(MAX_SIGNATURE_BYTES + 1)))),
        END,
        "a signature section of 32769 bytes, over 32768",
    ),
    "an empty signature": (make_eif((*PLAIN, (SIGNATURE, b""))), END, "section: no CBOR"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_file_is_refused_with_offset_and_fault(case: str) -> None:
    data, offset, what = REFUSED[case]
    with pytest.raises(EifRefused) as caught:
        read(data)
    assert what in caught.value.what
    assert caught.value.offset == offset
    assert str(caught.value) == f"offset {offset}: {caught.value.what}"


def test_every_truncation_is_refused_where_it_ends() -> None:
    data = make_eif(SIGNED)
    for size_bytes in range(len(data)):
        with pytest.raises(EifRefused, match=rf"^offset {size_bytes}: it ends within "):
            read(data[:size_bytes])


def test_a_truncation_says_what_is_missing() -> None:
    with pytest.raises(EifRefused, match=r"within section 0 \(kernel\): 200 bytes are missing"):
        read(make_eif()[:660])
    with pytest.raises(EifRefused, match="within the header of section 1 of 5"):
        read(make_eif()[:865])


def test_every_changed_byte_is_refused() -> None:
    data = make_eif()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x40
        with pytest.raises(EifRefused):
            read(bytes(damaged))


# -------------------------------------------------------------------------------------- signature

SIGNATURES: dict[str, tuple[bytes, str]] = {
    "no CBOR": (b"\xff", "no CBOR"),
    "more than CBOR": (SIGNER.section() + b"\x00", "1 bytes after its CBOR"),
    "duplicate keys": (b"\x81\xa2" + 2 * (cbor2.dumps("signature") + b"\x80"), "no CBOR"),
    "a map": (cbor2.dumps({}), "no array"),
    "a text": (cbor2.dumps("text"), "no array"),
    "none in it": (cbor2.dumps([]), "0 signatures"),
    "two in it": (cbor2.dumps(2 * cbor2.loads(SIGNER.section())), "2 signatures"),
    "no map in it": (cbor2.dumps([1]), "no map in its array"),
    "an empty map": (cbor2.dumps([{}]), "signing_certificate is no array of bytes"),
    "integers too large": (
        cbor2.dumps([{"signing_certificate": [256], "signature": []}]),
        "signing_certificate is no array of bytes",
    ),
    "truth in place of an integer": (
        cbor2.dumps([{"signing_certificate": [True], "signature": []}]),
        "signing_certificate is no array of bytes",
    ),
    "no PEM": (signature_section(b"certificate", b""), "holds no certificate in PEM"),
    "no base64": (
        signature_section(b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----", b""),
        "is not in base64",
    ),
    "no ASN.1": (
        signature_section(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", b""),
        "is no SEQUENCE of ASN.1",
    ),
    "a certificate cut off": (
        signature_section(
            b"-----BEGIN CERTIFICATE-----\n"
            + base64.b64encode(SIGNER.der[:-1])
            + b"\n-----END CERTIFICATE-----",
            b"",
        ),
        f"says {len(SIGNER.der)} bytes of ASN.1 and has {len(SIGNER.der) - 1}",
    ),
    "a short length": (
        signature_section(b"-----BEGIN CERTIFICATE-----\nMAIB\n-----END CERTIFICATE-----", b""),
        "says 4 bytes of ASN.1 and has 3",
    ),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_a_malformed_signature_is_refused(case: str) -> None:
    section, what = SIGNATURES[case]
    with pytest.raises(EifRefused, match=f"^offset {END}: the signature section: .*{what}"):
        read(make_eif((*PLAIN, (SIGNATURE, section))))


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
@pytest.mark.parametrize("tagged", [False, True], ids=["untagged", "tagged"])
def test_pcr8_is_of_the_certificate_and_the_signature_verifies(
    algorithm: str, tagged: bool
) -> None:
    signer = Signer(algorithm)
    image = read(make_eif((*PLAIN, (SIGNATURE, signer.section(tagged=tagged)))))

    assert image.measurements.pcrs == pcrs_of(PLAIN, signer.der)
    verify_signature(image)


def test_bytes_in_place_of_integers_are_read() -> None:
    section = cbor2.dumps(
        [{"signing_certificate": SIGNER.pem, "signature": SIGNER.cose(pcrs_of(PLAIN)[0])}]
    )
    verify_signature(read(make_eif((*PLAIN, (SIGNATURE, section)))))


def replaced(item: int, value: object) -> bytes:
    """The good signature with one item of its COSE_Sign1 replaced."""
    content = cbor2.loads(SIGNER.cose(pcrs_of(PLAIN)[0]))
    content[item] = value
    return cbor2.dumps(content)


GOOD = SIGNER.cose(pcrs_of(PLAIN)[0])
REGISTER = "something else than a register"
UNVERIFIED: dict[str, tuple[bytes, str]] = {
    "another image": (SIGNER.cose(bytes(48)), "it is for PCR0 = 0000"),
    "another register": (SIGNER.cose(pcrs_of(PLAIN)[0], index=1), "it is for PCR1 = "),
    "another key": (Signer().cose(pcrs_of(PLAIN)[0]), "the certificate's key did not make it"),
    "another curve": (Signer("ES256").cose(pcrs_of(PLAIN)[0]), "64 bytes do not fit secp384r1"),
    "an algorithm that is none": (
        SIGNER.cose(pcrs_of(PLAIN)[0], algorithm=-37),
        "algorithm -37 is none of",
    ),
    "a changed bit": (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "the certificate's key did not make it"),
    "no CBOR": (b"", "no CBOR"),
    "no COSE_Sign1": (cbor2.dumps([b"", {}, b""]), "no COSE_Sign1"),
    "texts": (cbor2.dumps(["", {}, "", ""]), "other things than bytes"),
    "no algorithm": (replaced(0, b"\xa0"), "names no algorithm"),
    "no protected map": (replaced(0, b"\x01"), "names no algorithm"),
    "no register": (replaced(2, b"\x01"), REGISTER),
    "no index": (replaced(2, b"\xa0"), "names no register"),
    "no value": (
        replaced(2, cbor2.dumps({"register_index": 0})),
        "register_value is no array of bytes",
    ),
}


@pytest.mark.parametrize("case", UNVERIFIED)
def test_a_signature_that_does_not_verify_is_refused(case: str) -> None:
    cose, what = UNVERIFIED[case]
    image = read(make_eif((*PLAIN, (SIGNATURE, signature_section(SIGNER.pem, cose)))))

    assert image.measurements.pcrs == pcrs_of(PLAIN, SIGNER.der)
    with pytest.raises(SignatureRefused, match=what):
        verify_signature(image)


def test_a_key_on_another_curve_is_refused() -> None:
    signer = Signer("a curve that images are not signed with")
    image = read(make_eif((*PLAIN, (SIGNATURE, signer.section()))))
    with pytest.raises(SignatureRefused, match="on none of the curves"):
        verify_signature(image)


def test_a_key_on_a_curve_that_nobody_knows_is_refused() -> None:
    der = SIGNER.der.replace(bytes.fromhex("2b81040022"), bytes.fromhex("2b8104007f"))
    assert der != SIGNER.der
    encoded = base64.b64encode(der)
    pem = b"-----BEGIN CERTIFICATE-----\n" + encoded + b"\n-----END CERTIFICATE-----"
    image = read(make_eif((*PLAIN, (SIGNATURE, signature_section(pem, GOOD)))))
    with pytest.raises(SignatureRefused, match="it cannot be read"):
        verify_signature(image)


def test_a_certificate_of_version_2_is_refused() -> None:
    der = SIGNER.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01")
    assert der != SIGNER.der
    pem = ssl.DER_cert_to_PEM_cert(der).encode()
    image = read(make_eif((*PLAIN, (SIGNATURE, signature_section(pem, GOOD)))))
    with pytest.raises(SignatureRefused, match="it cannot be read"):
        verify_signature(image)


def test_a_certificate_that_is_none_is_refused() -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"
    section = signature_section(pem, GOOD)
    with pytest.raises(SignatureRefused, match="it cannot be read"):
        verify_signature(read(make_eif((*PLAIN, (SIGNATURE, section)))))
    with pytest.raises(SignatureRefused, match="there is no signature"):
        verify_signature(read(make_eif()))


# ---------------------------------------------------------------------------------------- writing


def test_what_is_written_is_what_the_layout_says() -> None:
    data = build(PLAIN)

    assert read_eif(data) == list(PLAIN)
    assert data == make_eif()


@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=3, max_size=31),
    st.integers(1, 700),
)
def test_what_is_written_is_read_again(contents: Sequence[bytes], piece_bytes: int) -> None:
    kernel, metadata, *ramdisks = contents
    sections = [
        (KERNEL, kernel),
        (CMDLINE, b"quiet"),
        (METADATA, metadata),
        *((RAMDISK, ramdisk) for ramdisk in ramdisks),
    ]
    data = build(sections)

    assert read_eif(data) == sections
    assert read(data, piece_bytes).measurements.pcrs == pcrs_of(sections)


def test_the_writer_measures_what_the_reader_does() -> None:
    writer = EifWriter("aarch64", 3, b"c", b"{}", [2, 1])
    for section, content in zip(writer.sections, (b"ker", b"c", b"{}", b"r1", b"2"), strict=True):
        assert len(writer.section_header(section)) == 12
        writer.data(section, content)

    expected = ((KERNEL, b"ker"), (CMDLINE, b"c"), (RAMDISK, b"r1"), (RAMDISK, b"2"))
    assert writer.finish()[1].pcrs == pcrs_of(expected)
    assert [section.kind for section in writer.sections][2] is SectionKind.METADATA


UNUSABLE: dict[str, tuple[int, bytes, Sequence[int], str]] = {
    "no ramdisk": (1, b"", [], "0 ramdisks; 1 to 29 can be"),
    "too many ramdisks": (1, b"", [1] * (MAX_RAMDISKS + 1), "30 ramdisks"),
    "an empty kernel": (0, b"", [1], "a kernel without a byte"),
    "an empty ramdisk": (1, b"", [1, 0], "a ramdisk without a byte"),
    "a long command line": (1, b"x" * (MAX_CMDLINE_BYTES + 1), [1], "2048 bytes; the kernel takes"),
    "two lines": (1, b"a\nb", [1], "more than one line"),
    "a zero": (1, b"a\x00", [1], "more than one line"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_no_image_can_be_made_of_is_refused(case: str) -> None:
    kernel_bytes, cmdline, ramdisks, what = UNUSABLE[case]
    with pytest.raises(UnusableInput, match=what):
        EifWriter("x86_64", kernel_bytes, cmdline, b"{}", ramdisks)


def test_metadata_has_what_aws_tools_need_and_no_time() -> None:
    written = write_metadata({"ImageName": "web", "BuildMetadata": {"KernelVersion": "6.6"}})

    assert written.startswith(b'{"ImageName":"web","ImageVersion":"","BuildMetadata":')
    assert b'"BuildTime":"","BuildTool":"vsockproxy"' in written
    assert b'"KernelVersion":"6.6"},"DockerInfo":{},"CustomMetadata":{}}' in written
    assert b'"BuildTime":"now"' in write_metadata({"BuildMetadata": {"BuildTime": "now"}})


METADATA_FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "an unknown name": ({"Name": "x"}, "no Name: names of your own go into CustomMetadata"),
    "a number for a text": ({"ImageName": 1}, "ImageName is no text"),
    "an unknown name below": ({"BuildMetadata": {"Time": ""}}, "no BuildMetadata.Time"),
    "a number below": ({"BuildMetadata": {"BuildTime": 0}}, "BuildMetadata.BuildTime is no text"),
    "a list": ({"BuildMetadata": []}, "BuildMetadata is no object"),
}


@pytest.mark.parametrize("case", METADATA_FAULTS)
def test_other_metadata_is_refused(case: str) -> None:
    given_metadata, what = METADATA_FAULTS[case]
    with pytest.raises(UnusableInput, match=what):
        write_metadata(given_metadata)


# ------------------------------------------------------------------------------------- KMS policy


def test_the_condition_names_the_registers_that_have_content() -> None:
    unsigned = kms_condition(read(make_eif()).measurements)
    signed = kms_condition(read(make_eif(SIGNED)).measurements)

    expected = {
        "kms:RecipientAttestation:ImageSha384": pcrs_of(PLAIN)[0].hex(),
        "kms:RecipientAttestation:PCR1": pcrs_of(PLAIN)[1].hex(),
        "kms:RecipientAttestation:PCR2": pcrs_of(PLAIN)[2].hex(),
    }
    assert unsigned == {"Condition": {"StringEqualsIgnoreCase": expected}}
    expected["kms:RecipientAttestation:PCR8"] = pcrs_of(PLAIN, SIGNER.der)[8].hex()
    assert signed == {"Condition": {"StringEqualsIgnoreCase": expected}}


def test_the_condition_has_no_register_of_no_application() -> None:
    measured = read(make_eif(PLAIN[:-1])).measurements
    assert measured.pcr2.hex() == EMPTY_PCR2

    condition = kms_condition(measured)["Condition"]["StringEqualsIgnoreCase"]

    assert [name.rpartition(":")[2] for name in condition] == ["ImageSha384", "PCR1"]


KERNELS: dict[str, tuple[bytes, Architecture, bool]] = {
    "a bzImage": (bytes(0x202) + b"HdrS" + bytes(100), "x86_64", True),
    "an Image of aarch64": (bytes(0x38) + b"ARM\x64" + bytes(100), "aarch64", True),
    "a bzImage for aarch64": (bytes(0x202) + b"HdrS" + bytes(100), "aarch64", False),
    "an Image of aarch64 for x86_64": (bytes(0x38) + b"ARM\x64" + bytes(600), "x86_64", False),
    "an ELF file": (b"\x7fELF" + bytes(1000), "x86_64", False),
    "two bytes": (b"MZ", "x86_64", False),
    "nothing": (b"", "aarch64", False),
}


@pytest.mark.parametrize("case", KERNELS)
def test_a_kernel_is_known_by_its_header(case: str) -> None:
    beginning, architecture, expected = KERNELS[case]
    assert is_kernel(beginning, architecture) is expected


def test_memory_does_not_grow_with_the_image() -> None:
    size_bytes = 2**40
    data = make_eif(
        ((KERNEL, b""), (CMDLINE, b"")), sizes={0: size_bytes}, offsets={1: 560 + size_bytes}
    )
    reader = EifReader()
    reader.receive(data[:548] + bytes([0, KERNEL, 0, 0]) + size_bytes.to_bytes(8, "big"))
    piece = bytes(1 << 20)
    tracemalloc.start()
    try:
        for _ in range(16):
            reader.receive(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 64 * 1024
    with pytest.raises(EifRefused, match=f"{size_bytes - (16 << 20)} bytes are missing"):
        reader.finish()
