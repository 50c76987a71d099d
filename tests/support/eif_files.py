"""Enclave image files from their documented layout, in other words than the product's.

`make_eif` writes one field by field, so that each can be wrong; `read_eif` slices a whole file as
the table of its header says.
"""

import binascii
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

KERNEL, CMDLINE, RAMDISK, SIGNATURE, METADATA = 1, 2, 3, 4, 5

EMPTY_PCR2 = (
    "21b9efbc184807662e966d34f390821309eeac6802309798"
    "826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a"
)
"""Of every image with one ramdisk."""

Sections = Sequence[tuple[int, bytes]]

PLAIN: Sections = (
    (KERNEL, b"kernel" * 50),
    (CMDLINE, b"console=ttyS0"),
    (METADATA, b"{}"),
    (RAMDISK, b"init" * 30),
    (RAMDISK, b"app" * 40),
)


def _u(value: int, size_bytes: int) -> bytes:
    return value.to_bytes(size_bytes, "big")


def make_eif(
    sections: Sections = PLAIN,
    *,
    version: int = 4,
    flags: int = 0,
    count: int | None = None,
    offsets: Mapping[int, int] | None = None,
    sizes: Mapping[int, int] | None = None,
    tail: bytes = b"",
    crc: int | None = None,
) -> bytes:
    """A file.

    Args:
        sections: types and data.
        version: of the format.
        flags: the architecture.
        count: what the header says, in place of the number of sections.
        offsets: what its table says, in place of what is so.
        sizes: likewise.
        tail: behind the last section.
        crc: the checksum, in place of the right one.
    """
    body = b""
    table_offsets, table_sizes = [0] * 32, [0] * 32
    for number, (kind, data) in enumerate(sections):
        if number < 32:
            table_offsets[number] = (offsets or {}).get(number, 548 + len(body))
            table_sizes[number] = (sizes or {}).get(number, len(data))
        body += _u(kind, 2) + _u(0, 2) + _u(len(data), 8) + data
    body += tail
    head = b".eif" + _u(version, 2) + _u(flags, 2) + _u(2**30, 8) + _u(2, 8) + _u(0, 2)
    head += _u(len(sections) if count is None else count, 2)
    head += b"".join(_u(each, 8) for each in (*table_offsets, *table_sizes)) + _u(0, 4)
    return head + _u(binascii.crc32(head + body) if crc is None else crc, 4) + body


def read_eif(data: bytes) -> list[tuple[int, bytes]]:
    """Types and data, as the table says; asserts that the checksum is right."""
    assert data[:4] == b".eif"
    assert binascii.crc32(data[:0x220] + data[0x224:]) == int.from_bytes(data[0x220:0x224], "big")
    found = []
    for number in range(int.from_bytes(data[0x1A:0x1C], "big")):
        offset = int.from_bytes(data[0x1C + 8 * number :][:8], "big")
        size_bytes = int.from_bytes(data[0x11C + 8 * number :][:8], "big")
        assert int.from_bytes(data[offset + 4 :][:8], "big") == size_bytes
        found.append((int.from_bytes(data[offset:][:2], "big"), data[offset + 12 :][:size_bytes]))
    return found


def pcrs_of(sections: Sections, certificate: bytes | None = None) -> dict[int, bytes]:
    """The registers, from whole sections."""
    start = b"".join(data for kind, data in sections if kind in (KERNEL, CMDLINE))
    ramdisks = [data for kind, data in sections if kind == RAMDISK]
    contents = {
        0: b"".join(data for kind, data in sections if kind in (KERNEL, CMDLINE, RAMDISK)),
        1: start + b"".join(ramdisks[:1]),
        2: b"".join(ramdisks[1:]),
        **({} if certificate is None else {8: certificate}),
    }
    found = {8: bytes(48)}
    for number, content in contents.items():
        found[number] = hashlib.sha384(bytes(48) + hashlib.sha384(content).digest()).digest()
    return found


ALGORITHMS: dict[str, tuple[ec.EllipticCurve, int, hashes.HashAlgorithm]] = {
    "ES256": (ec.SECP256R1(), -7, hashes.SHA256()),
    "ES384": (ec.SECP384R1(), -35, hashes.SHA384()),
    "ES512": (ec.SECP521R1(), -36, hashes.SHA512()),
    "a curve that images are not signed with": (ec.SECP256K1(), -7, hashes.SHA256()),
}

SIGNED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Signer:
    """A key and its certificate, as `openssl req -x509` makes them."""

    def __init__(self, algorithm: str = "ES384") -> None:
        curve, self.cose_algorithm, self.hash = ALGORITHMS[algorithm]
        self.key = ec.generate_private_key(curve)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(SIGNED_AT)
            .not_valid_after(SIGNED_AT + timedelta(days=30))
            .sign(self.key, hashes.SHA384())
        )

    @property
    def der(self) -> bytes:
        """What PCR8 measures."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        """What the section holds."""
        return self.certificate.public_bytes(Encoding.PEM)

    def cose(
        self, pcr0: bytes, *, index: int = 0, algorithm: int | None = None, tagged: bool = False
    ) -> bytes:
        """The COSE_Sign1 over a register."""
        protected = cbor2.dumps({1: self.cose_algorithm if algorithm is None else algorithm})
        payload = cbor2.dumps({"register_index": index, "register_value": list(pcr0)})
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(self.hash)))
        half = (self.key.curve.key_size + 7) // 8
        content = [protected, {}, payload, _u(r, half) + _u(s, half)]
        return cbor2.dumps(cbor2.CBORTag(18, content) if tagged else content)

    def section(self, sections: Sections = PLAIN, *, tagged: bool = False) -> bytes:
        """The signature section of an image with these sections."""
        return signature_section(self.pem, self.cose(pcrs_of(sections)[0], tagged=tagged))


def signature_section(pem: bytes, cose: bytes) -> bytes:
    """The section: arrays of integers, as AWS's tool writes them."""
    return cbor2.dumps([{"signing_certificate": list(pem), "signature": list(cose)}])
