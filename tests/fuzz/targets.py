"""Every target there is; a new parser of hostile bytes gets its line here."""

from tests.fuzz.dns_targets import DNS, DNS_RECORDS
from tests.fuzz.document_targets import (
    ATTESTATION_CERTIFICATE,
    ATTESTATION_DOCUMENT,
    ATTESTATION_PAYLOAD,
)
from tests.fuzz.http_targets import HTTP_CONNECT, HTTP_EXCHANGE, HTTP_PROXY
from tests.fuzz.kms_targets import AWS_AUTHORIZATION, KMS_ENVELOPE
from tests.fuzz.log_stream_targets import LOG_POSITIONS, LOG_RECORDS
from tests.fuzz.proxy_header_targets import PROXY_HEADER
from tests.fuzz.record_reply_targets import RECORD_REPLY
from tests.fuzz.session_targets import (
    SESSION_ATTESTATION,
    SESSION_HELLO,
    SESSION_LINK,
    SESSION_SCRIPT,
)
from tests.fuzz.socks_targets import SOCKS5
from tests.fuzz.stream_packet_targets import STREAM_ANSWER, STREAM_REQUEST
from tests.fuzz.target import Target
from tests.fuzz.text_targets import CONFIG, DESTINATION, ENDPOINT, HOST
from tests.fuzz.tls_targets import CLIENT_HELLO

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        HTTP_PROXY,
        HTTP_EXCHANGE,
        HTTP_CONNECT,
        SOCKS5,
        DNS,
        DNS_RECORDS,
        CLIENT_HELLO,
        PROXY_HEADER,
        RECORD_REPLY,
        CONFIG,
        HOST,
        ENDPOINT,
        DESTINATION,
        SESSION_HELLO,
        SESSION_ATTESTATION,
        SESSION_LINK,
        SESSION_SCRIPT,
        STREAM_REQUEST,
        STREAM_ANSWER,
        LOG_RECORDS,
        LOG_POSITIONS,
        KMS_ENVELOPE,
        AWS_AUTHORIZATION,
        ATTESTATION_DOCUMENT,
        ATTESTATION_PAYLOAD,
        ATTESTATION_CERTIFICATE,
    )
}
