"""Every target there is; a new parser of hostile bytes gets its line here."""

from tests.fuzz.acme_targets import ACME_MESSAGE, ACME_ORDER
from tests.fuzz.attestation_request_targets import ATTESTATION_REQUEST
from tests.fuzz.dns_targets import DNS, DNS_RECORDS
from tests.fuzz.document_targets import ATTESTATION_DOCUMENT, ATTESTATION_PAYLOAD
from tests.fuzz.eif_targets import EIF, EIF_SIGNATURE
from tests.fuzz.http_targets import (
    HTTP_CONNECT,
    HTTP_EXCHANGE,
    HTTP_FRONT,
    HTTP_PROXY,
    SERVICE_REQUEST,
)
from tests.fuzz.kms_client_targets import KMS_CLIENT
from tests.fuzz.kms_proxy_targets import (
    KMS_ANSWER,
    KMS_ANSWER_HEAD,
    KMS_CALL,
    KMS_CONVERSATION,
)
from tests.fuzz.kms_targets import AWS_AUTHORIZATION, KMS_ENVELOPE
from tests.fuzz.log_stream_targets import LOG_POSITIONS, LOG_RECORDS
from tests.fuzz.nsm_targets import NSM_REQUEST, NSM_RESPONSE
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
from tests.fuzz.tls_targets import CERTIFICATE, CLIENT_HELLO, TLS_RECORDS
from tests.fuzz.verification_targets import ATTESTATION_CERTIFICATE, ATTESTATION_VERIFIED

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        HTTP_PROXY,
        HTTP_EXCHANGE,
        HTTP_CONNECT,
        HTTP_FRONT,
        SERVICE_REQUEST,
        SOCKS5,
        DNS,
        DNS_RECORDS,
        CLIENT_HELLO,
        TLS_RECORDS,
        CERTIFICATE,
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
        EIF,
        EIF_SIGNATURE,
        ACME_MESSAGE,
        ACME_ORDER,
        KMS_ENVELOPE,
        AWS_AUTHORIZATION,
        KMS_CALL,
        KMS_ANSWER,
        KMS_CONVERSATION,
        KMS_ANSWER_HEAD,
        ATTESTATION_DOCUMENT,
        ATTESTATION_PAYLOAD,
        ATTESTATION_CERTIFICATE,
        ATTESTATION_VERIFIED,
        ATTESTATION_REQUEST,
        NSM_REQUEST,
        NSM_RESPONSE,
        KMS_CLIENT,
    )
}
