"""Requests to the Nitro Secure Module and its responses: CBOR, one each. Pure.

A request without arguments is its name as a text string, one with arguments a map of one entry
(aws-nitro-enclaves-nsm-api, src/api/mod.rs). A response is `{NAME: {...}}`, the name alone where
there is nothing to say (LockPCR, LockPCRs), or `{"Error": CODE}`.

| request     | arguments                                   | response                             |
|-------------|---------------------------------------------|--------------------------------------|
| DescribeNSM |                                             | version_major, version_minor,        |
|             |                                             | version_patch, module_id, max_pcrs,  |
|             |                                             | locked_pcrs, digest                  |
| DescribePCR | index                                       | lock, data                           |
| ExtendPCR   | index, data                                 | data: the new value                  |
| LockPCR     | index                                       |                                      |
| LockPCRs    | range: all below it                         |                                      |
| GetRandom   |                                             | random: at most 256 bytes            |
| Attestation | user_data, nonce, public_key: bytes or null | document: COSE_Sign1                 |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from vsockproxy.attestation.nsm_errors import (
    NsmError,
    NsmRefused,
    NsmRequestError,
    NsmResponseError,
)
from vsockproxy.attestation.whole_cbor import decode_whole

__all__ = (
    "MAX_FIELD_BYTES",
    "MAX_RANDOM_BYTES",
    "MAX_REQUEST_BYTES",
    "MAX_RESPONSE_BYTES",
    "PCR_BYTES",
    "PCR_COUNT",
    "NsmDescription",
    "NsmError",
    "PcrState",
    "encode_attestation",
    "encode_describe_nsm",
    "encode_describe_pcr",
    "encode_extend_pcr",
    "encode_get_random",
    "encode_lock_pcr",
    "encode_lock_pcrs",
    "parse_attestation",
    "parse_describe_nsm",
    "parse_describe_pcr",
    "parse_extend_pcr",
    "parse_get_random",
    "parse_lock_pcr",
    "parse_lock_pcrs",
)

MAX_REQUEST_BYTES: Final = 0x1000
MAX_RESPONSE_BYTES: Final = 0x3000
"""NSM_REQUEST_MAX_SIZE and NSM_RESPONSE_MAX_SIZE of the kernel's drivers/misc/nsm.c."""

MAX_RANDOM_BYTES: Final = 256
"""The most that one GetRandom gives."""

MAX_FIELD_BYTES: Final = 1024
"""The longest user_data, nonce and public_key (docs/attestation_process.md of AWS's nsm-api has
it in its CDDL, and their own test of the device sends as much)."""

PCR_COUNT: Final = 32
PCR_BYTES: Final = 48
"""Platform configuration registers, and a value of one of them: SHA-384."""

_PCR_LENGTHS: Final = (32, PCR_BYTES, 64)
"""Of SHA-256, SHA-384 and SHA-512, which a module may be made with."""

_MAX_TEXT_CHARACTERS: Final = 256
_UNSIGNED_16: Final = range(1 << 16)

_DESCRIBE_NSM: Final = "DescribeNSM"
_DESCRIBE_PCR: Final = "DescribePCR"
_EXTEND_PCR: Final = "ExtendPCR"
_LOCK_PCR: Final = "LockPCR"
_LOCK_PCRS: Final = "LockPCRs"
_GET_RANDOM: Final = "GetRandom"
_ATTESTATION: Final = "Attestation"


@dataclass(frozen=True, slots=True)
class NsmDescription:
    """What a module says of itself.

    Args:
        version: major, minor and patch.
        module_id: the instance and the enclave: `i-<17 hex>-enc<16 hex>`.
        max_pcrs: how many registers there are.
        locked_pcrs: those that cannot be extended any more.
        digest: the hash function of the registers: `SHA384`.
    """

    version: tuple[int, int, int]
    module_id: str
    max_pcrs: int
    locked_pcrs: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class PcrState:
    """A register's value, and whether it is locked."""

    value: bytes
    is_locked: bool


def encode_describe_nsm() -> bytes:
    """The request for what the module is."""
    return cbor2.dumps(_DESCRIBE_NSM)


def parse_describe_nsm(response: bytes) -> NsmDescription:
    """What the module is.

    Raises:
        NsmRefused: the module refused.
        NsmResponseError: this is no such response.
    """
    fields = _Fields(_parse(response, _DESCRIBE_NSM), _DESCRIBE_NSM)
    locked = fields.get("locked_pcrs")
    if not isinstance(locked, Sequence) or isinstance(locked, str | bytes):
        raise fields.wrong("locked_pcrs")
    if any(type(index) is not int or index not in _UNSIGNED_16 for index in locked):
        raise fields.wrong("locked_pcrs")
    return NsmDescription(
        (
            fields.number("version_major"),
            fields.number("version_minor"),
            fields.number("version_patch"),
        ),
        fields.text("module_id"),
        fields.number("max_pcrs"),
        tuple(locked),
        fields.text("digest"),
    )


def encode_describe_pcr(index: int) -> bytes:
    """The request for a register.

    Raises:
        NsmRequestError: there is no such register.
    """
    return cbor2.dumps({_DESCRIBE_PCR: {"index": _checked_index(index)}})


def parse_describe_pcr(response: bytes) -> PcrState:
    """A register. Raises what `parse_describe_nsm` does."""
    fields = _Fields(_parse(response, _DESCRIBE_PCR), _DESCRIBE_PCR)
    is_locked = fields.get("lock")
    if not isinstance(is_locked, bool):
        raise fields.wrong("lock")
    return PcrState(fields.pcr_value(), is_locked)


def encode_extend_pcr(index: int, data: bytes) -> bytes:
    """The request that makes a register SHA384(its value || data).

    Raises:
        NsmRequestError: there is no such register, or the data do not fit.
    """
    request = cbor2.dumps({_EXTEND_PCR: {"index": _checked_index(index), "data": bytes(data)}})
    if len(request) > MAX_REQUEST_BYTES:
        raise NsmRequestError(
            f"a request of {len(request)} bytes, over {MAX_REQUEST_BYTES}: extend with a hash"
        )
    return request


def parse_extend_pcr(response: bytes) -> bytes:
    """The register's new value. Raises what `parse_describe_nsm` does."""
    return _Fields(_parse(response, _EXTEND_PCR), _EXTEND_PCR).pcr_value()


def encode_lock_pcr(index: int) -> bytes:
    """The request that locks a register.

    Raises:
        NsmRequestError: there is no such register.
    """
    return cbor2.dumps({_LOCK_PCR: {"index": _checked_index(index)}})


def parse_lock_pcr(response: bytes) -> None:
    """It is locked. Raises what `parse_describe_nsm` does."""
    _parse(response, _LOCK_PCR)


def encode_lock_pcrs(count: int) -> bytes:
    """The request that locks the first `count` registers.

    Raises:
        NsmRequestError: there are not as many.
    """
    if count not in range(PCR_COUNT + 1):
        raise NsmRequestError(f"{count} registers, of which there are {PCR_COUNT}")
    return cbor2.dumps({_LOCK_PCRS: {"range": count}})


def parse_lock_pcrs(response: bytes) -> None:
    """They are locked. Raises what `parse_describe_nsm` does."""
    _parse(response, _LOCK_PCRS)


def encode_get_random() -> bytes:
    """The request for random bytes."""
    return cbor2.dumps(_GET_RANDOM)


def parse_get_random(response: bytes) -> bytes:
    """At least 1 and at most `MAX_RANDOM_BYTES`. Raises what `parse_describe_nsm` does."""
    random = _parse(response, _GET_RANDOM).get("random")
    if not isinstance(random, bytes) or not 0 < len(random) <= MAX_RANDOM_BYTES:
        raise NsmResponseError(
            f"{_GET_RANDOM} was answered without 1 to {MAX_RANDOM_BYTES} random bytes"
        )
    return random


def encode_attestation(
    user_data: bytes | None, nonce: bytes | None, public_key: bytes | None
) -> bytes:
    """The request for a document.

    Raises:
        NsmRequestError: one of them is longer than `MAX_FIELD_BYTES`, or the key is empty.
    """
    fields = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
    for name, value in fields.items():
        if value is not None and len(value) > MAX_FIELD_BYTES:
            raise NsmRequestError(f"{name} of {len(value)} bytes, over {MAX_FIELD_BYTES}")
    if public_key is not None and not public_key:
        raise NsmRequestError("an empty public_key: leave it out")
    # What is not wanted is null, as AWS's own clients write it.
    sent = {name: None if value is None else bytes(value) for name, value in fields.items()}
    return cbor2.dumps({_ATTESTATION: sent})


def parse_attestation(response: bytes) -> bytes:
    """The document, which is not verified. Raises what `parse_describe_nsm` does."""
    fields = _Fields(_parse(response, _ATTESTATION), _ATTESTATION)
    document = fields.get("document")
    if not isinstance(document, bytes) or not document:
        raise fields.wrong("document")
    return document


def _checked_index(index: int) -> int:
    if index not in range(PCR_COUNT):
        raise NsmRequestError(f"there is no PCR {index}: they are 0 to {PCR_COUNT - 1}")
    return index


def _parse(response: bytes, name: str) -> Mapping[Any, Any]:
    """What the response to the request `name` holds."""
    if len(response) > MAX_RESPONSE_BYTES:
        raise NsmResponseError(
            f"{name} was answered by {len(response)} bytes, over {MAX_RESPONSE_BYTES}"
        )
    try:
        content = decode_whole(response)
    except ValueError as error:
        raise NsmResponseError(f"{name} was answered by something that is no CBOR") from error
    if content == name and name in (_LOCK_PCR, _LOCK_PCRS):
        return {}
    if isinstance(content, Mapping) and len(content) == 1:
        code = content.get("Error")
        if isinstance(code, str):
            raise NsmRefused(name, code)
        fields = content.get(name)
        if isinstance(fields, Mapping):
            return fields
    raise NsmResponseError(f"{name} was answered by something else")


class _Fields:
    """The fields of one response."""

    def __init__(self, fields: Mapping[Any, Any], request: str) -> None:
        self._fields = fields
        self._request = request

    def get(self, name: str) -> Any:
        return self._fields.get(name)

    def wrong(self, name: str) -> NsmResponseError:
        return NsmResponseError(f"{self._request} was answered without a proper {name}")

    def number(self, name: str) -> int:
        value = self.get(name)
        if type(value) is not int or value not in _UNSIGNED_16:
            raise self.wrong(name)
        return value

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT_CHARACTERS:
            raise self.wrong(name)
        if not value.isprintable():
            raise self.wrong(name)
        return value

    def pcr_value(self) -> bytes:
        value = self.get("data")
        if not isinstance(value, bytes) or len(value) not in _PCR_LENGTHS:
            raise self.wrong("data")
        return value
