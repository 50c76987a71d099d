"""Requests to the Nitro Secure Module and its responses: CBOR, one each.

A request without arguments is its name as a text string, one with arguments a map of one entry;
a response is `{NAME: {...}}` or `{"Error": CODE}` (aws-nitro-enclaves-nsm-api, src/api/mod.rs).
"""

from collections.abc import Mapping
from typing import Any, Final

import cbor2

from vsockproxy.errors import VsockproxyError

__all__ = (
    "MAX_RANDOM_BYTES",
    "MAX_REQUEST_BYTES",
    "MAX_RESPONSE_BYTES",
    "NsmError",
    "encode_get_random",
    "parse_get_random",
)

MAX_REQUEST_BYTES: Final = 0x1000
MAX_RESPONSE_BYTES: Final = 0x3000
"""NSM_REQUEST_MAX_SIZE and NSM_RESPONSE_MAX_SIZE of the kernel's drivers/misc/nsm.c."""

MAX_RANDOM_BYTES: Final = 256
"""The most that one GetRandom gives."""

_MAX_CODE_CHARACTERS: Final = 64

_GET_RANDOM: Final = "GetRandom"


class NsmError(VsockproxyError):
    """The module refused, or said what it should not have said."""


def encode_get_random() -> bytes:
    """The request for random bytes."""
    return cbor2.dumps(_GET_RANDOM)


def parse_get_random(response: bytes) -> bytes:
    """The random bytes of a response: at least 1, at most `MAX_RANDOM_BYTES`.

    Raises:
        NsmError: the module refused, or this is no such response.
    """
    random = _parse(response, _GET_RANDOM).get("random")
    if not isinstance(random, bytes) or not 0 < len(random) <= MAX_RANDOM_BYTES:
        raise NsmError(f"{_GET_RANDOM} was answered without 1 to {MAX_RANDOM_BYTES} random bytes")
    return random


def _parse(response: bytes, name: str) -> Mapping[Any, Any]:
    """What the response to the request `name` holds."""
    if len(response) > MAX_RESPONSE_BYTES:
        raise NsmError(f"{name} was answered by {len(response)} bytes, over {MAX_RESPONSE_BYTES}")
    try:
        content: Any = cbor2.loads(response)
    except (cbor2.CBORError, UnicodeError, ValueError, RecursionError) as error:
        raise NsmError(f"{name} was answered by something that is no CBOR") from error
    if isinstance(content, Mapping) and len(content) == 1:
        code = content.get("Error")
        if isinstance(code, str):
            raise NsmError(f"the module refused {name}: {code[:_MAX_CODE_CHARACTERS]!r}")
        fields = content.get(name)
        if isinstance(fields, Mapping):
            return fields
    raise NsmError(f"{name} was answered by something else")
