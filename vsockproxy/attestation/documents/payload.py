"""The payload of a document: its fields, their types and sizes, before anything is verified.

AWS's attestation_process.md ("Attestation document specification") has the rules; real documents
have null for an optional field that is not used, and up to 1024 bytes in nonce and user_data,
whatever its prose says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from vsockproxy.attestation.documents.refusal import DocumentRefused, Reason
from vsockproxy.attestation.documents.structure import decode

__all__ = ("MAX_PCRS", "PCR_LENGTHS", "Payload", "parse_payload")

MAX_PAYLOAD_BYTES: Final = 16_384
MAX_CERTIFICATE_BYTES: Final = 1024
MAX_OPTIONAL_BYTES: Final = 1024
MAX_CABUNDLE: Final = 8
"""Certificates above the leaf; AWS has four."""

MAX_PCRS: Final = 32
PCR_LENGTHS: Final = frozenset({32, 48, 64})
"""Bytes of SHA-256, SHA-384 and SHA-512; all real ones have 48."""

_DIGEST: Final = "SHA384"

_MAX_TIMESTAMP_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""

_NAMES: Final[Mapping[type, str]] = MappingProxyType(
    {
        bytes: "bytes",
        str: "text",
        int: "an integer",
        bool: "a boolean",
        float: "a float",
        list: "an array",
        tuple: "an array",
        dict: "a map",
        type(None): "null",
    }
)
"""What CBOR calls what the decoder makes of it; an array as a key becomes a tuple."""

_NITROTPM_PCRS: Final = "nitrotpm_pcrs"


@dataclass(frozen=True, slots=True)
class Payload:
    """What a document says, whoever wrote it.

    Only the verification and what is shown as unverified may look at it.
    """

    module_id: str
    digest: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    """The leaf, DER."""
    cabundle: tuple[bytes, ...]
    """The certificates above it, DER, the root first."""
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None


def parse_payload(data: bytes) -> Payload:
    """Read the fields; unknown ones are left aside, as their signer may add some.

    Raises:
        DocumentRefused: a field is missing, null, or not of its type or size.
    """
    if not 0 < len(data) <= MAX_PAYLOAD_BYTES:
        raise DocumentRefused(
            Reason.FIELD_SIZE, f"a payload of {len(data)} bytes, 1 to {MAX_PAYLOAD_BYTES} may be"
        )
    fields = decode(data, "payload")
    if type(fields) is not dict or not all(type(key) is str for key in fields):
        raise DocumentRefused(Reason.NOT_A_DOCUMENT, "the payload is no map with names as keys")
    if _NITROTPM_PCRS in fields:
        raise DocumentRefused(
            Reason.NITROTPM_DOCUMENT,
            "this is the document of a virtual machine with NitroTPM, not of an enclave",
        )
    return Payload(
        module_id=_module_id(fields),
        digest=_digest(fields),
        timestamp_ms=_timestamp(fields),
        pcrs=_pcrs(fields),
        certificate=_certificate(_mandatory(fields, "certificate", bytes), "certificate"),
        cabundle=_cabundle(fields),
        public_key=_optional(fields, "public_key", least=1),
        user_data=_optional(fields, "user_data"),
        nonce=_optional(fields, "nonce"),
    )


def _module_id(fields: dict[str, Any]) -> str:
    value: str = _mandatory(fields, "module_id", str)
    if not value:
        raise DocumentRefused(Reason.FIELD_SIZE, "module_id is empty")
    return value


def _digest(fields: dict[str, Any]) -> str:
    value: str = _mandatory(fields, "digest", str)
    if value != _DIGEST:
        raise DocumentRefused(Reason.WRONG_DIGEST, f"digest is {value!r:.40}, not {_DIGEST}")
    return value


def _timestamp(fields: dict[str, Any]) -> int:
    value: int = _mandatory(fields, "timestamp", int)
    if not 0 < value <= _MAX_TIMESTAMP_MS:
        raise DocumentRefused(
            Reason.OUT_OF_RANGE, f"timestamp is {value}, which are no milliseconds since 1970"
        )
    return value


def _pcrs(fields: dict[str, Any]) -> dict[int, bytes]:
    values: dict[Any, Any] = _mandatory(fields, "pcrs", dict)
    if not 0 < len(values) <= MAX_PCRS:
        raise DocumentRefused(
            Reason.FIELD_SIZE, f"pcrs has {len(values)} entries, 1 to {MAX_PCRS} may be"
        )
    for index, value in values.items():
        _check_type(index, int, "a key of pcrs")
        if not 0 <= index < MAX_PCRS:
            raise DocumentRefused(
                Reason.OUT_OF_RANGE, f"there is no PCR{index}, only 0 to {MAX_PCRS - 1}"
            )
        _check_type(value, bytes, f"PCR{index}")
        if len(value) not in PCR_LENGTHS:
            raise DocumentRefused(Reason.FIELD_SIZE, f"PCR{index} has {len(value)} bytes, not 48")
    return values


def _cabundle(fields: dict[str, Any]) -> tuple[bytes, ...]:
    values: list[Any] = _mandatory(fields, "cabundle", list)
    if not 0 < len(values) <= MAX_CABUNDLE:
        raise DocumentRefused(
            Reason.FIELD_SIZE, f"cabundle has {len(values)} entries, 1 to {MAX_CABUNDLE} may be"
        )
    for number, value in enumerate(values):
        _check_type(value, bytes, f"cabundle[{number}]")
        _certificate(value, f"cabundle[{number}]")
    return tuple(values)


def _certificate(value: bytes, name: str) -> bytes:
    if not 0 < len(value) <= MAX_CERTIFICATE_BYTES:
        raise DocumentRefused(
            Reason.FIELD_SIZE, f"{name} has {len(value)} bytes, 1 to {MAX_CERTIFICATE_BYTES} may be"
        )
    return value


def _optional(fields: dict[str, Any], name: str, *, least: int = 0) -> bytes | None:
    value: bytes | None = fields.get(name)
    if value is None:
        return None
    _check_type(value, bytes, name)
    if not least <= len(value) <= MAX_OPTIONAL_BYTES:
        raise DocumentRefused(
            Reason.FIELD_SIZE,
            f"{name} has {len(value)} bytes, {least} to {MAX_OPTIONAL_BYTES} may be",
        )
    return value


def _mandatory(fields: dict[str, Any], name: str, kind: type) -> Any:
    if name not in fields:
        raise DocumentRefused(Reason.MISSING_FIELD, f"there is no {name}")
    value = fields[name]
    if value is None:
        raise DocumentRefused(Reason.NULL_FIELD, f"{name} is null")
    _check_type(value, kind, name)
    return value


def _check_type(value: object, kind: type, name: str) -> None:
    # Exactly: a bool is an int, too.
    if type(value) is not kind:
        raise DocumentRefused(
            Reason.WRONG_TYPE, f"{name} is {_name_of(type(value))}, not {_name_of(kind)}"
        )


def _name_of(kind: type) -> str:
    return _NAMES.get(kind, "something else")
