"""A software module: what the Nitro Secure Module answers, without one. Pure.

For development and tests. Its documents are built as Nitro's newest are, byte by byte, and signed
below a root of its own (`software_pki`), so that every step of a verifier has to be right but the
root. It measures nothing: PCR 0 to 2 are constants, which anybody can have.

Requests that are wrong get the codes that QEMU's emulation of the device gives
(hw/virtio/virtio-nsm.c), and AWS's library where that has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha384
from types import MappingProxyType
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from vsockproxy.attestation.nsm_errors import NsmCode
from vsockproxy.attestation.nsm_messages import (
    MAX_FIELD_BYTES,
    MAX_RANDOM_BYTES,
    MAX_REQUEST_BYTES,
    PCR_BYTES,
    PCR_COUNT,
    PcrState,
)
from vsockproxy.attestation.software_pki import Chain, ModuleKeys, SoftwareRoot, issue_chain
from vsockproxy.attestation.whole_cbor import decode_whole

__all__ = (
    "MODULE_ID",
    "SOFTWARE_PCRS",
    "SoftwareNsm",
    "encode_payload",
    "sign_document",
)

MODULE_ID: Final = "i-00000000000000000-enc0000000000000000"
"""That of no instance and no enclave."""

FIRST_FREE_PCR: Final = 16
"""Those below are locked from the start; these and all after are the program's."""

ZEROS: Final = bytes(PCR_BYTES)


def _extended(value: bytes, data: bytes) -> bytes:
    return sha384(value + data).digest()


SOFTWARE_PCRS: Final[Mapping[int, bytes]] = MappingProxyType(
    {
        index: sha384(f"vsockproxy software NSM, PCR{index}".encode("ascii")).digest()
        for index in range(3)
    }
)
"""What stands where an image's measurements would: SHA-384 of `vsockproxy software NSM, PCR0`, and
so on. They are not zero, as those of an enclave in debug mode are."""

LEAF_LASTS: Final = timedelta(hours=2, minutes=15)
"""How long a leaf signs documents, of the 3 hours for which it is valid."""

VERSION: Final = (1, 0, 0)
_ALGORITHM: Final = b"\xa1\x01\x38\x22"
"""The protected header of every document: {1: -35}, ES384 (RFC 9053, section 2.1)."""
_SIGNATURE_HALF: Final = 48
_MILLISECONDS: Final = 1000
_INDEFINITE_MAP: Final = b"\xbf"
_BREAK: Final = b"\xff"


class _Refusal(Exception):
    """A request that is answered by a code."""

    def __init__(self, code: NsmCode) -> None:
        super().__init__(code)
        self.code = code


class SoftwareNsm:
    """A module: requests in, responses out.

    Args:
        root: of its certificates.
        keys: those below.
        module_id: `<instance id>-enc<number>`; PCR 4 is made to fit.
        pcrs: values of registers below 16 in place of the usual ones; all zeros for 0 to 2 make
            documents as those of an enclave in debug mode.
        registers: those from 16 on as `registers` gave them, to go on from there.
    """

    def __init__(
        self,
        root: SoftwareRoot,
        keys: ModuleKeys,
        *,
        module_id: str = MODULE_ID,
        pcrs: Mapping[int, bytes] | None = None,
        registers: Mapping[int, PcrState] | None = None,
    ) -> None:
        self._root = root
        self._keys = keys
        self._module_id = module_id
        instance_id = module_id.partition("-enc")[0]
        values = {
            **dict.fromkeys(range(PCR_COUNT), ZEROS),
            **SOFTWARE_PCRS,
            4: _extended(ZEROS, instance_id.encode("ascii")),
            **(pcrs or {}),
        }
        self._registers = {
            index: PcrState(values[index], index < FIRST_FREE_PCR) for index in range(PCR_COUNT)
        } | dict(registers or {})
        self._chain: Chain | None = None

    @property
    def registers(self) -> dict[int, PcrState]:
        """The registers from 16 on, which are all that can change."""
        return {index: self._registers[index] for index in range(FIRST_FREE_PCR, PCR_COUNT)}

    def answer(self, request: bytes, at: datetime, random: bytes) -> bytes:
        """The response to a request.

        Args:
            request: as a program sent it; any bytes.
            at: now, with its zone.
            random: `MAX_RANDOM_BYTES` random bytes, used at most once.
        """
        try:
            return cbor2.dumps(self._answer(request, at, random))
        except _Refusal as refusal:
            return cbor2.dumps({"Error": str(refusal.code)})

    def _answer(self, request: bytes, at: datetime, random: bytes) -> Any:
        if len(request) > MAX_REQUEST_BYTES:
            raise _Refusal(NsmCode.INPUT_TOO_LARGE)
        name, arguments = _read_request(request)
        match name:
            case "DescribeNSM":
                return {name: self._describe()}
            case "GetRandom":
                return {name: {"random": random[:MAX_RANDOM_BYTES]}}
            case "DescribePCR":
                state = self._registers[arguments.index()]
                return {name: {"lock": state.is_locked, "data": state.value}}
            case "ExtendPCR":
                index = self._unlocked(arguments)
                value = _extended(self._registers[index].value, arguments.data())
                self._registers[index] = PcrState(value, is_locked=False)
                return {name: {"data": value}}
            case "LockPCR":
                self._lock(self._unlocked(arguments))
                return name
            case "LockPCRs":
                for index in range(arguments.count()):
                    self._lock(index)
                return name
            case "Attestation":
                return {name: {"document": self._attest(arguments, at)}}
            case _:
                raise _Refusal(NsmCode.INVALID_OPERATION)

    def _describe(self) -> dict[str, Any]:
        major, minor, patch = VERSION
        return {
            "version_major": major,
            "version_minor": minor,
            "version_patch": patch,
            "module_id": self._module_id,
            "max_pcrs": PCR_COUNT,
            "locked_pcrs": [index for index, each in self._registers.items() if each.is_locked],
            "digest": "SHA384",
        }

    def _unlocked(self, arguments: "_Arguments") -> int:
        index = arguments.index()
        if self._registers[index].is_locked:
            raise _Refusal(NsmCode.READ_ONLY_INDEX)
        return index

    def _lock(self, index: int) -> None:
        self._registers[index] = PcrState(self._registers[index].value, is_locked=True)

    def _attest(self, arguments: "_Arguments", at: datetime) -> bytes:
        chain = self._chain
        # A clock that was put back leaves the leaf of the future behind.
        if chain is None or not chain.issued_at <= at <= chain.issued_at + LEAF_LASTS:
            chain = self._chain = issue_chain(self._root, self._keys, self._module_id, at)
        payload = encode_payload(
            {
                "module_id": self._module_id,
                "digest": "SHA384",
                "timestamp": int(at.timestamp() * _MILLISECONDS),
                "pcrs": {
                    index: each.value for index, each in self._registers.items() if each.is_locked
                },
                "certificate": chain.leaf,
                "cabundle": list(chain.cabundle),
                "public_key": arguments.optional("public_key"),
                "user_data": arguments.optional("user_data"),
                "nonce": arguments.optional("nonce"),
            }
        )
        return sign_document(payload, self._keys.leaf)


def encode_payload(fields: Mapping[str, Any], *, is_indefinite: bool = True) -> bytes:
    """The map that a document signs, its keys in the order given.

    Args:
        fields: of the document.
        is_indefinite: whether the map's length is left open, as documents have it since 2025.
    """
    if not is_indefinite:
        return cbor2.dumps(dict(fields))
    items = b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in fields.items())
    return _INDEFINITE_MAP + items + _BREAK


def sign_document(payload: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The document that signs a payload: COSE_Sign1 without its tag (RFC 9052, section 4.2)."""
    signed = cbor2.dumps(["Signature1", _ALGORITHM, b"", payload])
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA384())))
    signature = r.to_bytes(_SIGNATURE_HALF, "big") + s.to_bytes(_SIGNATURE_HALF, "big")
    return cbor2.dumps([_ALGORITHM, {}, payload, signature])


@dataclass(frozen=True, slots=True)
class _Arguments:
    """The arguments of one request, of which nothing is known yet."""

    fields: Mapping[Any, Any]

    def index(self) -> int:
        """The number of a register."""
        index = self.fields.get("index")
        if type(index) is not int:
            raise _Refusal(NsmCode.INVALID_ARGUMENT)
        if index not in range(PCR_COUNT):
            raise _Refusal(NsmCode.INVALID_INDEX)
        return index

    def count(self) -> int:
        """How many registers."""
        count = self.fields.get("range")
        if type(count) is not int:
            raise _Refusal(NsmCode.INVALID_ARGUMENT)
        if count not in range(PCR_COUNT + 1):
            raise _Refusal(NsmCode.INVALID_INDEX)
        return count

    def data(self) -> bytes:
        """What a register is extended with."""
        data = self.fields.get("data")
        if type(data) is not bytes:
            raise _Refusal(NsmCode.INVALID_ARGUMENT)
        return data

    def optional(self, name: str) -> bytes | None:
        """What is to stand in a document."""
        value = self.fields.get(name)
        if value is None:
            return None
        least = 1 if name == "public_key" else 0
        if type(value) is not bytes or not least <= len(value) <= MAX_FIELD_BYTES:
            raise _Refusal(NsmCode.INVALID_ARGUMENT)
        return value


def _read_request(request: bytes) -> tuple[str, _Arguments]:
    try:
        content = decode_whole(request)
    except ValueError as error:
        raise _Refusal(NsmCode.INVALID_OPERATION) from error
    if isinstance(content, str):
        return content if content in ("DescribeNSM", "GetRandom") else "", _Arguments({})
    if isinstance(content, Mapping) and len(content) == 1:
        ((name, arguments),) = content.items()
        if isinstance(name, str) and isinstance(arguments, Mapping):
            return name, _Arguments(arguments)
    raise _Refusal(NsmCode.INVALID_OPERATION)
