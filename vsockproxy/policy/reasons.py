"""The fixed words for what became of a stream; logs, frames and HTTP answers carry these."""

from enum import StrEnum
from typing import Final

__all__ = ("MOST_SEVERE_FIRST", "Reason")


class Reason(StrEnum):
    """Why a stream was allowed or refused."""

    LISTED = "listed"
    """An allow rule names host and port; the only reason that enforcing policy allows by."""
    NOT_LISTED = "not_listed"
    PORT_NOT_LISTED = "port_not_listed"
    """The host is listed, for other ports."""
    DENIED = "denied"
    """A deny rule covers the host, or an address it resolved to."""
    ADDRESS_PRIVATE = "address_private"
    """RFC 1918, ULA, carrier-grade NAT or loopback, and the rule lacks `private: true`."""
    ADDRESS_METADATA = "address_metadata"
    """Link-local or instance metadata, and the rule is not that literal with `metadata: true`."""
    ADDRESS_RESERVED = "address_reserved"
    """Multicast, documentation or another address that no rule opens."""
    ATTESTATION_REQUIRED = "attestation_required"
    """The enclave has not attested the measurements that its entry in the file demands."""
    NOT_TLS = "not_tls"
    SNI_MISMATCH = "sni_mismatch"
    TLS_FAILED = "tls_failed"
    """TLS that our side speaks did not come about; the text says why."""
    NO_SUCH_NAME = "no_such_name"
    LOOKUP_FAILED = "lookup_failed"
    DIAL_REFUSED = "dial_refused"
    DIAL_TIMEOUT = "dial_timeout"
    LIMIT = "limit"
    PARENT_AWAY = "parent_away"


MOST_SEVERE_FIRST: Final = (
    Reason.DENIED,
    Reason.ADDRESS_METADATA,
    Reason.ADDRESS_RESERVED,
    Reason.ADDRESS_PRIVATE,
)
"""Which of several refused addresses of one name gives the refusal its reason.

Answers come in changing order; the reason must not change with it.
"""
