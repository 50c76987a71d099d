"""Documents that are signed, by certificates which are wrong; and those that are not required."""

from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.forged_documents import (
    AT,
    INSTANCE,
    LEAF,
    MACHINE,
    MODULE_ID,
    PCRS,
    ROOT,
    Forge,
    measurement,
    pcr_of_instance,
)
from tests.vsockproxy.attestation.documents.case import Case, with_fields
from tests.vsockproxy.attestation.documents.refused_certificates import ALL, NAMES, made, plain
from vsockproxy.attestation.documents import Reason

_A_SECOND = timedelta(seconds=1)


def _bundle(change: Callable[[list[bytes]], list[bytes]], reason: Reason, text: str) -> Case:
    def make(forge: Forge) -> bytes:
        return forge.document(cabundle=change(list(forge.certificates[:-1])))

    return Case(make, reason, text)


def _leaf(change: Callable[[bytes], bytes], reason: Reason, text: str) -> Case:
    return Case(
        lambda forge: forge.document(certificate=change(forge.certificates[-1])), reason, text
    )


def _by_another(position: int) -> Callable[[Forge], bytes]:
    """The certificate at a position is of another authority, with the same names."""

    def make(forge: Forge) -> bytes:
        other = Forge()
        if position == LEAF:
            other.fields["cabundle"] = forge.certificates[:-1]
            return other.document()
        certificates = list(forge.certificates[:-1])
        certificates[position] = other.certificates[position]
        return forge.document(cabundle=certificates)

    return make


CHAINS = {
    "another root": Case(lambda forge: Forge().document(), Reason.UNTRUSTED_ROOT, "cabundle[0]"),
    "AWS's root expected": Case(
        plain, Reason.UNTRUSTED_ROOT, "AWS's", requirements={"roots": None}
    ),
    "another root's certificate in front": Case(
        _by_another(ROOT), Reason.UNTRUSTED_ROOT, "cabundle[0] is not"
    ),
    "the root is missing": _bundle(
        lambda bundle: bundle[1:], Reason.UNTRUSTED_ROOT, "cabundle[0] is not"
    ),
    "the root is last": _bundle(
        lambda bundle: bundle[::-1], Reason.UNTRUSTED_ROOT, "cabundle[0] is not"
    ),
    "the region's is missing": _bundle(
        lambda bundle: [bundle[0], *bundle[2:]], Reason.CHAIN_BROKEN, "cabundle[1]: its issuer"
    ),
    "the instance's is missing": _bundle(
        lambda bundle: bundle[:-1], Reason.CHAIN_BROKEN, "certificate: its issuer is not the subj"
    ),
    "all but the root are missing": _bundle(
        lambda bundle: bundle[:1], Reason.CHAIN_BROKEN, "certificate: its issuer"
    ),
    "region and zone swapped": _bundle(
        lambda bundle: [bundle[0], bundle[2], bundle[1], bundle[3]],
        Reason.CHAIN_BROKEN,
        "cabundle[1]: its issuer",
    ),
    "zone and instance swapped": _bundle(
        lambda bundle: [bundle[0], bundle[1], bundle[3], bundle[2]],
        Reason.CHAIN_BROKEN,
        "cabundle[2]: its issuer",
    ),
    "the region's twice": _bundle(
        lambda bundle: [bundle[0], bundle[1], *bundle[1:]],
        Reason.CHAIN_BROKEN,
        "cabundle[2]: its issuer",
    ),
    "the instance's twice": _bundle(
        lambda bundle: [*bundle, bundle[-1]], Reason.CHAIN_BROKEN, "cabundle[4]: its issuer"
    ),
    "a foreign one behind": _bundle(
        lambda bundle: [*bundle, Forge().root], Reason.CHAIN_BROKEN, "cabundle[4]: its issuer"
    ),
    "a foreign root behind the root": _bundle(
        lambda bundle: [bundle[0], Forge().certificates[2], *bundle[1:]],
        Reason.CHAIN_BROKEN,
        "cabundle[1]",
    ),
    "the enclave's in the cabundle, too": Case(
        lambda forge: forge.document(cabundle=list(forge.certificates)),
        Reason.CHAIN_BROKEN,
        "certificate: its issuer",
    ),
    "the instance's for the enclave's": Case(
        lambda forge: forge.document(certificate=forge.certificates[MACHINE]),
        Reason.CHAIN_BROKEN,
        "certificate: its issuer",
    ),
    "the root's for the enclave's": Case(
        lambda forge: forge.document(certificate=forge.root), Reason.CHAIN_BROKEN, "certificate"
    ),
    **{
        f"{NAMES[position]} by another authority of that name": Case(
            _by_another(position),
            Reason.CERTIFICATE_SIGNATURE,
            f"{NAMES[position]}: the key of cabundle[{position - 1}] did not sign it",
        )
        for position in ALL[1:]
    },
    "the enclave's certificate with another signature": _leaf(
        lambda der: der[:-1] + bytes((der[-1] ^ 1,)), Reason.CERTIFICATE_SIGNATURE, "certificate"
    ),
    "an empty sequence": _leaf(lambda _: b"\x30\x00", Reason.MALFORMED_CERTIFICATE, "certificate"),
    "a cut certificate": _leaf(lambda der: der[:-1], Reason.MALFORMED_CERTIFICATE, "certificate"),
    "a certificate and a byte": _leaf(
        lambda der: der + b"\x00", Reason.MALFORMED_CERTIFICATE, "certificate: no DER"
    ),
    "a certificate in PEM": _leaf(
        lambda der: x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM),
        Reason.MALFORMED_CERTIFICATE,
        "certificate: no DER",
    ),
    "no certificate in the cabundle": _bundle(
        lambda bundle: [*bundle[:-1], b"\x30\x03\x02\x01\x00"],
        Reason.MALFORMED_CERTIFICATE,
        "cabundle[3]: no DER",
    ),
}

TIMES = {
    **{
        f"{NAMES[position]} expired": made(
            position, Reason.EXPIRED, "valid until", begins=AT - timedelta(9), ends=AT - _A_SECOND
        )
        for position in ALL
    },
    **{
        f"{NAMES[position]} not yet valid": made(
            position, Reason.NOT_YET_VALID, "valid from", begins=AT + _A_SECOND
        )
        for position in ALL
    },
    "a second after three hours": Case(
        plain, Reason.EXPIRED, "valid until", at=AT + timedelta(hours=3, seconds=1)
    ),
    "four seconds before": Case(
        plain, Reason.NOT_YET_VALID, "cabundle[0]: valid from", at=AT - timedelta(seconds=4)
    ),
    "years later": Case(plain, Reason.EXPIRED, "", at=AT.replace(year=9999)),
    "long before": Case(plain, Reason.NOT_YET_VALID, "", at=datetime(1, 1, 1, tzinfo=AT.tzinfo)),
}

_DEBUG = {**PCRS, 0: bytes(48), 1: bytes(48), 2: bytes(48)}

REQUIREMENTS = {
    "PCR4 of another instance": Case(
        with_fields(pcrs={**PCRS, 4: pcr_of_instance("i-1")}), Reason.PCR4_MISMATCH, MODULE_ID
    ),
    "PCR4 of zeros": Case(with_fields(pcrs={**PCRS, 4: bytes(48)}), Reason.PCR4_MISMATCH, ""),
    "PCR4 of the instance in SHA-512": Case(
        with_fields(pcrs={**PCRS, 4: bytes(64)}), Reason.PCR4_MISMATCH, ""
    ),
    "a module without an instance": Case(
        with_fields(module_id=INSTANCE), Reason.PCR4_MISMATCH, "the instance in module_id"
    ),
    "a module with an empty instance": Case(
        with_fields(module_id="-enc0", pcrs={**PCRS, 4: pcr_of_instance("")}),
        Reason.PCR4_MISMATCH,
        "",
    ),
    "another module than PCR4 says": Case(
        with_fields(module_id="i-0-enc0"), Reason.PCR4_MISMATCH, "i-0-enc0"
    ),
    "debug mode": Case(with_fields(pcrs=_DEBUG), Reason.DEBUG_MODE, "debug mode"),
    "debug mode, where others are set": Case(
        with_fields(pcrs={**_DEBUG, 3: measurement(3), 8: measurement(8)}), Reason.DEBUG_MODE, ""
    ),
    "debug mode, and a measurement expected": Case(
        with_fields(pcrs=_DEBUG), Reason.DEBUG_MODE, "", requirements={"pcrs": {0: measurement(0)}}
    ),
    "no measurement of an image": Case(
        with_fields(pcrs={16: measurement(16)}), Reason.DEBUG_MODE, ""
    ),
    "another PCR0": Case(
        plain,
        Reason.PCR_MISMATCH,
        f"PCR0 is another than the one expected, {measurement(9).hex()}",
        requirements={"pcrs": {0: measurement(9)}},
    ),
    "another PCR8": Case(
        plain, Reason.PCR_MISMATCH, "PCR8 is another", requirements={"pcrs": {8: measurement(8)}}
    ),
    "one of several is another": Case(
        plain,
        Reason.PCR_MISMATCH,
        "PCR2 is another",
        requirements={"pcrs": {2: measurement(1), 1: measurement(1), 0: measurement(0)}},
    ),
    "a measurement of another length": Case(
        plain, Reason.PCR_MISMATCH, "PCR0", requirements={"pcrs": {0: measurement(0) + bytes(16)}}
    ),
    "a measurement that is not there": Case(
        plain, Reason.PCR_MISSING, "PCR16 is not in", requirements={"pcrs": {16: bytes(48)}}
    ),
    "another nonce": Case(
        with_fields(nonce=b"old"),
        Reason.NONCE_MISMATCH,
        "nonce is another than the one expected: 6f6c64, not 6e6577",
        requirements={"nonce": b"new"},
    ),
    "a long nonce": Case(
        with_fields(nonce=bytes(512)),
        Reason.NONCE_MISMATCH,
        f"expected: {'00' * 64}… (512 bytes), not 6e6577",
        requirements={"nonce": b"new"},
    ),
    "no nonce": Case(
        plain, Reason.NONCE_MISMATCH, "no nonce in it", requirements={"nonce": b"new"}
    ),
    "an empty nonce": Case(
        with_fields(nonce=b""),
        Reason.NONCE_MISMATCH,
        "expected: empty, not 6e6577",
        requirements={"nonce": b"new"},
    ),
    "a beginning of the nonce": Case(
        with_fields(nonce=b"ne"), Reason.NONCE_MISMATCH, "another", requirements={"nonce": b"new"}
    ),
    "other user data": Case(
        with_fields(user_data=b"a"),
        Reason.USER_DATA_MISMATCH,
        "user_data is another",
        requirements={"user_data": b"b"},
    ),
    "no user data, and empty data required": Case(
        plain, Reason.USER_DATA_MISMATCH, "no user_data", requirements={"user_data": b""}
    ),
    "another public key": Case(
        with_fields(public_key=b"theirs"),
        Reason.PUBLIC_KEY_MISMATCH,
        "public_key is another",
        requirements={"public_key": b"mine"},
    ),
    "no public key": Case(
        plain, Reason.PUBLIC_KEY_MISMATCH, "no public_key", requirements={"public_key": b"mine"}
    ),
    "a minute and a moment old": Case(
        plain,
        Reason.TOO_OLD,
        "60.001 seconds old, at most 60",
        requirements={"max_age_seconds": 60},
        at=AT + timedelta(seconds=60, milliseconds=1),
    ),
    "older than no time at all": Case(
        plain,
        Reason.TOO_OLD,
        "0.001 seconds",
        requirements={"max_age_seconds": 0},
        at=AT + timedelta(milliseconds=1),
    ),
    "from two seconds later": Case(
        plain,
        Reason.FROM_THE_FUTURE,
        "2.000 seconds after",
        requirements={"max_age_seconds": 1},
        at=AT - timedelta(seconds=2),
    ),
}
