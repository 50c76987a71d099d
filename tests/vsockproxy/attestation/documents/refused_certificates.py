"""Documents that are signed, by certificates of which one is not as AWS's are."""

from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ObjectIdentifier

from tests.support.forged_documents import (
    LEAF,
    MACHINE,
    REGION,
    ROOT,
    ZONE,
    Forge,
    der,
    der_content,
    der_elements,
)
from tests.vsockproxy.attestation.documents.case import Case
from vsockproxy.attestation.documents import Reason

NAMES = {
    ROOT: "cabundle[0]",
    REGION: "cabundle[1]",
    ZONE: "cabundle[2]",
    MACHINE: "cabundle[3]",
    LEAF: "certificate",
}
ALL = tuple(NAMES)
AUTHORITIES = ALL[:-1]


def plain(forge: Forge) -> bytes:
    return forge.document()


def made(position: int, reason: Reason, text: str = "", **changes: Any) -> Case:
    """A certificate that is made otherwise."""
    forge = _forge({position: changes})
    return Case(plain, reason, f"{NAMES[position]}: {text}" if text else "", forge=forge)


def _forge(changes: Mapping[int, Mapping[str, Any]]) -> Callable[[], Forge]:
    return lambda: Forge(changes)


def _without_version(elements: list[bytes]) -> list[bytes]:
    """Version 1 has neither a version nor extensions (RFC 5280, section 4.1)."""
    return elements[1:-1]


def _version_2(elements: list[bytes]) -> list[bytes]:
    return [b"\xa0\x03\x02\x01\x01", *elements[1:-1]]


def _version_9(elements: list[bytes]) -> list[bytes]:
    return [b"\xa0\x03\x02\x01\x08", *elements[1:]]


def _p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _p521() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP521R1())


def _brainpool() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.BrainpoolP384R1())


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2048)


_UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
_NAME_CONSTRAINTS = x509.NameConstraints(
    permitted_subtrees=[x509.DNSName("example.com")], excluded_subtrees=None
)

FORMS = {
    "an enclave's key on P-256": made(LEAF, Reason.WRONG_CURVE, "its key", make_key=_p256),
    "an enclave's key on P-521": made(LEAF, Reason.WRONG_CURVE, "its key", make_key=_p521),
    "an enclave's key on another curve of 384 bits": made(
        LEAF, Reason.WRONG_CURVE, "its key", make_key=_brainpool
    ),
    "an enclave's key of RSA": made(LEAF, Reason.WRONG_CURVE, "its key", make_key=_rsa),
    "an instance's key on P-256": made(MACHINE, Reason.WRONG_CURVE, "its key", make_key=_p256),
    "a root's key on P-521": made(ROOT, Reason.WRONG_CURVE, "its key", make_key=_p521),
    "a root's key of RSA": made(
        ROOT, Reason.CERTIFICATE_ALGORITHM, "not signed by ECDSA", make_key=_rsa
    ),
    **{
        f"{NAMES[position]} signed by {hash_algorithm.name}": made(
            position, Reason.CERTIFICATE_ALGORITHM, "not signed by ECDSA", hash=hash_algorithm
        )
        for position in ALL
        for hash_algorithm in (hashes.SHA256(), hashes.SHA512())
    },
    "an enclave's certificate of version 1": made(
        LEAF, Reason.CERTIFICATE_VERSION, "not X.509 v3", edit=_without_version
    ),
    "an instance's certificate of version 1": made(
        MACHINE, Reason.CERTIFICATE_VERSION, "not X.509 v3", edit=_without_version
    ),
    "an enclave's certificate of version 2": made(
        LEAF, Reason.CERTIFICATE_VERSION, "not X.509 v3", edit=_version_2
    ),
    "an enclave's certificate of version 9": made(
        LEAF, Reason.CERTIFICATE_VERSION, "not X.509 v3", edit=_version_9
    ),
}

EXTENSIONS = {
    **{
        f"{NAMES[position]} is no CA": made(
            position, Reason.NOT_A_CA, "it issued another one", is_ca=False, path_length=None
        )
        for position in AUTHORITIES
    },
    **{
        f"{NAMES[position]} without basicConstraints": made(
            position, Reason.BASIC_CONSTRAINTS, "no critical basicConstraints", is_ca=None
        )
        for position in ALL
    },
    **{
        f"{NAMES[position]} without critical basicConstraints": made(
            position, Reason.BASIC_CONSTRAINTS, "no critical", has_critical_constraints=False
        )
        for position in ALL
    },
    **{
        f"{NAMES[position]} with too short a path": made(
            position,
            Reason.PATH_LENGTH,
            f"{3 - position} CA certificates",
            path_length=2 - position,
        )
        for position in (ROOT, REGION, ZONE)
    },
    "a root that issues leaves only": made(
        ROOT, Reason.PATH_LENGTH, "3 CA certificates follow, it allows 0", path_length=0
    ),
    **{
        f"{NAMES[position]} without keyUsage": made(position, Reason.KEY_USAGE, "", usages=None)
        for position in ALL
    },
    **{
        f"{NAMES[position]} may not sign certificates": made(
            position, Reason.KEY_USAGE, "no critical keyUsage", usages=("crl_sign",)
        )
        for position in AUTHORITIES
    },
    "an authority without critical keyUsage": made(
        ZONE, Reason.KEY_USAGE, "no critical keyUsage", has_critical_usage=False
    ),
    "an enclave's certificate of a CA": made(
        LEAF,
        Reason.LEAF_IS_CA,
        "it signed the document and is a CA",
        is_ca=True,
        usages=("digital_signature",),
    ),
    "an enclave's certificate that may not sign": made(
        LEAF, Reason.KEY_USAGE, "no keyUsage with digital", usages=("content_commitment",)
    ),
    "an enclave's certificate that may sign others": made(
        LEAF,
        Reason.KEY_USAGE,
        "keyCertSign, which a CA alone may have",
        usages=("digital_signature", "key_cert_sign"),
    ),
    **{
        f"{NAMES[position]} with an unknown critical extension": made(
            position,
            Reason.CRITICAL_EXTENSION,
            "the critical extension 1.3.6.1.4.1.99999.1",
            extensions=((_UNKNOWN, True),),
        )
        for position in ALL
    },
    "critical name constraints": made(
        REGION,
        Reason.CRITICAL_EXTENSION,
        "the critical extension 2.5.29.30",
        extensions=((_NAME_CONSTRAINTS, True),),
    ),
    "critical extended key usage": made(
        LEAF,
        Reason.CRITICAL_EXTENSION,
        "the critical extension 2.5.29.37",
        extensions=((x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH]), True),),
    ),
}


def _with_serial(content: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda elements: [elements[0], der(0x02, content), *elements[2:]]


def _with_extension(extension: bytes) -> Callable[[list[bytes]], list[bytes]]:
    def edit(elements: list[bytes]) -> list[bytes]:
        extensions = der_content(der_content(elements[-1]))
        return [*elements[:-1], der(0xA3, der(0x30, extensions + extension))]

    return edit


def _with_path_length(elements: list[bytes]) -> list[bytes]:
    """basicConstraints of a leaf that has a pathLenConstraint."""
    _, *others = der_elements(der_content(der_content(elements[-1])))
    value = der(0x04, der(0x30, b"\x02\x01\x00"))
    constraints = der(0x30, b"\x06\x03\x55\x1d\x13\x01\x01\xff" + value)
    return [*elements[:-1], der(0xA3, der(0x30, constraints + b"".join(others)))]


def _with_null_parameters(elements: list[bytes]) -> list[bytes]:
    return [*elements[:2], der(0x30, der_content(elements[2]) + b"\x05\x00"), *elements[3:]]


def _with_generalized_time(elements: list[bytes]) -> list[bytes]:
    """Dates before 2050 are UTCTime (RFC 5280, section 4.1.2.5)."""
    times = der(0x18, b"20260101000000Z") + der(0x18, b"20270101000000Z")
    return [*elements[:4], der(0x30, times), *elements[5:]]


def _beside_the_curve(elements: list[bytes]) -> list[bytes]:
    algorithm, point = der_elements(der_content(elements[6]))
    bits = bytearray(der_content(point))
    bits[5] ^= 1
    return [*elements[:6], der(0x30, algorithm + der(0x03, bytes(bits))), *elements[7:]]


_USAGE = bytes.fromhex("300b0603551d0f040403020780")

MALFORMED = {
    "a serial number of zero": made(
        LEAF, Reason.MALFORMED_CERTIFICATE, "no DER", edit=_with_serial(b"\x00")
    ),
    "a negative serial number": made(
        MACHINE, Reason.MALFORMED_CERTIFICATE, "no DER", edit=_with_serial(b"\xff")
    ),
    "an extension twice": made(
        LEAF, Reason.MALFORMED_CERTIFICATE, "no DER", edit=_with_extension(_USAGE)
    ),
    "a path length without a CA": made(
        LEAF, Reason.MALFORMED_CERTIFICATE, "no DER", edit=_with_path_length
    ),
    "two signature algorithms": made(
        LEAF, Reason.MALFORMED_CERTIFICATE, "no DER", edit=_with_null_parameters
    ),
    "a key that is not on its curve": made(
        LEAF, Reason.MALFORMED_CERTIFICATE, "its key cannot be read", edit=_beside_the_curve
    ),
}

REFUSED_BY_THE_LIBRARY = {
    "dates in the wrong form": Case(
        plain,
        Reason.CHAIN_REFUSED,
        "validity dates between 1950 and 2049 must be UtcTime",
        forge=_forge({LEAF: {"edit": _with_generalized_time}}),
    ),
    "a name outside of its constraints": Case(
        plain,
        Reason.CHAIN_REFUSED,
        "no permitted name constraints",
        forge=_forge(
            {
                REGION: {"extensions": ((_NAME_CONSTRAINTS, False),)},
                LEAF: {
                    "extensions": ((x509.SubjectAlternativeName([x509.DNSName("a.test")]), False),)
                },
            }
        ),
    ),
}
