"""What can go wrong with TLS, in words: OpenSSL's errors are translated here and nowhere else."""

import ssl
from collections.abc import Mapping
from typing import Final

from vsockproxy.errors import Refused
from vsockproxy.policy.reasons import Reason

__all__ = ("TlsFailed", "TlsTruncated", "describe")

MOST_TEXT: Final = 200


class TlsFailed(Refused):
    """TLS with the other end did not come about, or broke; `text` says what was wrong."""

    def __init__(self, text: str) -> None:
        super().__init__(Reason.TLS_FAILED, text)


class TlsTruncated(TlsFailed):
    """The other end closed without close_notify."""

    def __init__(self) -> None:
        super().__init__("it closed without close_notify: something may be missing")


_VERIFY: Final[Mapping[int, str]] = {
    # X509_V_ERR_* of OpenSSL's x509_vfy.h
    9: "its certificate is not yet valid: is the clock right?",
    10: "its certificate has expired, or the clock is wrong",
    18: "its certificate is self-signed and not among the trusted ones",
    19: "unknown authority: its chain ends in a root that is not trusted",
    20: "unknown authority: nobody trusted has issued its certificate",
    21: "unknown authority: it sent no chain to a trusted root",
    23: "its certificate is revoked",
    26: "its certificate is not for this purpose",
    62: "name mismatch: its certificate is for another name",
    64: "name mismatch: its certificate is for another address",
    66: "the key of its certificate is too weak",
    67: "a key in its chain is too weak",
    68: "a signature in its chain uses a weak digest",
}

_REASONS: Final[Mapping[str, str]] = {
    # Alerts of the peer, RFC 8446, section 6.2, under the names that OpenSSL gives them
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it agrees to no version, cipher or curve of ours, or wants a"
    " client certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks neither TLS 1.2 nor 1.3",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of our certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it does not admit our certificate",
    "TLSV1_ALERT_DECRYPT_ERROR": "it found a signature or a key of ours wrong",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know the server name that was asked for",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "it speaks none of the application protocols offered",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate, and got none",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it does not take a certificate of our kind",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired for it",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our certificate is revoked for it",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate",
    # What OpenSSL finds itself
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it sent no client certificate",
    "NO_SHARED_CIPHER": "no common cipher",
    "UNSUPPORTED_PROTOCOL": "it speaks neither TLS 1.2 nor 1.3",
    "WRONG_VERSION_NUMBER": "what it sent is not TLS",
    "HTTP_REQUEST": "it sent a plain HTTP request",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "a record was changed on its way",
    "BAD_RECORD_MAC": "a record was changed on its way",
}


def describe(error: ssl.SSLError) -> str:
    """One line on what was wrong, said of the other end."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = _VERIFY.get(error.verify_code)
        return text or f"its certificate was refused: {error.verify_message}"[:MOST_TEXT]
    reason = error.reason or ""
    text = _REASONS.get(reason)
    return text or (reason.replace("_", " ").lower() or str(error))[:MOST_TEXT]
