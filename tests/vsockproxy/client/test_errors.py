import errno
import pickle
import socket

import pytest

from vsockproxy.client.errors import (
    ERRNO_BY_REASON,
    DialRefused,
    DialTimedOut,
    LookupFailed,
    NoSuchName,
    NotAllowed,
    OpeningCut,
    ParentAway,
    StreamRefused,
    StreamSocketMissing,
    errno_for,
    refused,
)
from vsockproxy.errors import Refused, VsockproxyError
from vsockproxy.policy.reasons import Reason

CASES: dict[str, tuple[type[StreamRefused], type[OSError], int]] = {
    **dict.fromkeys(
        (
            *("not_listed", "port_not_listed", "denied"),
            *("address_private", "address_metadata", "address_reserved"),
            *("not_tls", "sni_mismatch", "attestation_required", "a reason of a later version"),
        ),
        (NotAllowed, PermissionError, errno.EACCES),
    ),
    "tls_failed": (StreamRefused, OSError, errno.EPROTO),
    "no_such_name": (NoSuchName, socket.gaierror, socket.EAI_NONAME),
    "lookup_failed": (LookupFailed, socket.gaierror, socket.EAI_AGAIN),
    "dial_refused": (DialRefused, ConnectionRefusedError, errno.ECONNREFUSED),
    "dial_timeout": (DialTimedOut, TimeoutError, errno.ETIMEDOUT),
    "limit": (StreamRefused, OSError, errno.ENOBUFS),
    "parent_away": (ParentAway, ConnectionError, errno.ENETUNREACH),
}


def test_every_reason_that_refuses_has_an_errno() -> None:
    assert set(ERRNO_BY_REASON) == set(Reason) - {Reason.LISTED}
    assert set(ERRNO_BY_REASON) < set(CASES)


@pytest.mark.parametrize("reason", CASES)
def test_a_refusal_is_the_error_that_sockets_have_for_it(reason: str) -> None:
    own, python, number = CASES[reason]
    error = refused(reason, "what to do", "kms.test", 443)
    assert type(error) is own
    assert isinstance(error, python)
    assert isinstance(error, Refused)
    assert (error.errno, error.reason, error.text) == (number, reason, "what to do")
    assert (error.host, error.port) == ("kms.test", 443)
    assert str(error) == error.strerror == f"{reason}: kms.test:443: what to do"
    assert errno_for(reason) == number


def test_a_literal_of_ipv6_is_shown_in_brackets() -> None:
    assert str(refused("denied", "no", "2001:db8::1", 443)) == "denied: [2001:db8::1]:443: no"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(refused("dial_timeout", "text", "a.test", 1), id="a refusal"),
        pytest.param(StreamSocketMissing(errno.ENOENT, "text"), id="no stream socket"),
        pytest.param(OpeningCut(), id="no answer"),
    ],
)
def test_an_error_can_be_pickled(error: OSError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.errno) == (type(error), str(error), error.errno)
    assert isinstance(copy, VsockproxyError)


def test_what_is_not_refused_is_a_connection_error() -> None:
    assert isinstance(OpeningCut(), ConnectionResetError)
    assert OpeningCut().errno == errno.ECONNRESET
    missing = StreamSocketMissing(errno.ENOENT, "text")
    assert isinstance(missing, ConnectionError)
    assert (missing.errno, str(missing)) == (errno.ENOENT, "text")
