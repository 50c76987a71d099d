"""Targets: what programs ask of the software module, and what a module answers."""

from datetime import UTC, datetime

import cbor2

from tests.fuzz.target import Target
from tests.support.nsm_server import software_nsm
from tests.vsockproxy.attestation.test_nsm_messages import ELSE, PARSERS, REQUESTS, WRONG
from tests.vsockproxy.attestation.test_software_nsm import REFUSED
from vsockproxy.attestation.nsm_errors import NsmCode, NsmRefused, NsmResponseError
from vsockproxy.attestation.nsm_messages import MAX_RESPONSE_BYTES

_AT = datetime(2026, 1, 31, tzinfo=UTC)
_RANDOM = bytes(range(256))
_CODES = frozenset(NsmCode)
MAX_CODE_CHARACTERS = 64


def _answer(request: bytes) -> str:
    # A new one each time: what one input extends and locks, the next one must not meet.
    answered = software_nsm().answer(request, _AT, _RANDOM)
    assert len(answered) <= MAX_RESPONSE_BYTES
    content = cbor2.loads(answered)
    if isinstance(content, dict) and "Error" in content:
        assert content["Error"] in _CODES
        return str(content["Error"])
    name = content if isinstance(content, str) else next(iter(content))
    PARSERS[name][0](answered)
    return str(name)


def _read(response: bytes) -> str:
    return " ".join(dict.fromkeys(_outcome(name, response) for name in PARSERS))


def _outcome(name: str, response: bytes) -> str:
    """How one parser ended; its errors, without the name that makes them differ."""
    try:
        PARSERS[name][0](response)
    except NsmRefused as refused:
        return _fit_to_show("refused", refused, refused.code)
    except NsmResponseError as error:
        return _fit_to_show(str(error).removeprefix(name)[:40], error)
    return name


def _fit_to_show(outcome: str, error: Exception, code: str = "") -> str:
    assert str(error).isprintable()
    assert len(code) <= MAX_CODE_CHARACTERS
    return outcome


_DICTIONARY = (
    *(cbor2.dumps(name) for name in PARSERS),
    *(cbor2.dumps(name) for name in ("index", "data", "range", "user_data", "nonce", "lock")),
    *(cbor2.dumps(name) for name in ("public_key", "document", "random", "Error", "locked_pcrs")),
    *(b"\x10", b"\x18\x20", b"\xf4", b"\xf5", b"\xf6", b"\xf7", b"\xa0", b"\xa1", b"\x80"),
    *(b"\x58\x30" + bytes(48), b"\x5b\x7f" + b"\xff" * 7, b"\xbf", b"\x5f", b"\xff"),
    *(b"\xd8\x1c\x81\xd8\x1d\x00", b"\xc2\x49" + b"\xff" * 9, b"\x3b" + b"\xff" * 8),
)

NSM_REQUEST = Target(
    "nsm_request",
    _answer,
    (
        *(request for request, _ in REQUESTS.values()),
        *(cbor2.dumps(request) for request, _ in REFUSED.values()),
    ),
    _DICTIONARY,
    most_memory_bytes=1024 * 1024,
)
NSM_RESPONSE = Target(
    "nsm_response",
    _read,
    (
        *(cbor2.dumps(response) for _, response, _ in PARSERS.values()),
        *(cbor2.dumps(response) for _, response, _ in WRONG.values()),
        *(response for response, _ in ELSE.values()),
        cbor2.dumps({"Error": "InternalError"}),
    ),
    _DICTIONARY,
)
