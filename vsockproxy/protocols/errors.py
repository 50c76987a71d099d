"""What programs and origins send that no reader of this package accepts.

ProtocolError
├── HeadError                no head of an HTTP message; callers turn it into one of the next two
├── HttpError                carries the answer: status, reason, text
│   ├── HttpRequestError     the client's fault
│   └── HttpResponseError    the origin's fault
├── SocksError               the client's fault; carries the answer
├── QueryError               no DNS query; carries the answer, if there is one
├── ProxyHeaderError         no PROXY protocol header of version 2 for TCP
├── RecordError              the parent's fault: no data of such a DNS record
├── CertificateError         no certificate, as far as it is read
├── LogStreamError           the fault of the other end of a log stream
├── SignatureError           no signature of an AWS request, or a request that cannot be signed
└── ClientHelloError         carries one of the reasons of a decision
    ├── NotTls               the first bytes are no ClientHello
    └── SniMismatch          a ClientHello for another host than the one asked for

Texts never quote what was sent, beyond names: heads carry credentials, and texts are logged.
"""

from typing import ClassVar, Final

from vsockproxy.errors import VsockproxyError


class ProtocolError(VsockproxyError):
    """Bytes that are not what the reader reads; `text` is one line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class HeadError(ProtocolError):
    """No head of an HTTP message: malformed, or longer than its limit."""

    def __init__(self, text: str, *, is_too_large: bool = False) -> None:
        super().__init__(text)
        self.is_too_large = is_too_large


class HttpError(ProtocolError):
    """An exchange that failed, with what `http_answers.refusal` needs for the answer.

    Args:
        status: the HTTP status of the answer.
        reason: what Proxy-Status says, an error type of RFC 9209, section 2.3.
        text: one line: what is wrong and what to do.
    """

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class HttpRequestError(HttpError):
    """The client sent what is not taken from it.

    Args:
        status: the HTTP status of the answer.
        text: one line: what is wrong and what to do.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, "http_request_error", text)


MALFORMED: Final = "http_protocol_error"
INCOMPLETE: Final = "http_response_incomplete"
"""The reasons of an HttpResponseError."""


class HttpResponseError(HttpError):
    """The origin sent, or left out, what the client must not take for an answer.

    Args:
        reason: `MALFORMED` or `INCOMPLETE`.
        text: one line: what is wrong.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(502, reason, text)


class SocksError(ProtocolError):
    """The client sent what our SOCKS proxy does not take.

    Args:
        answer: what tells the client before the connection is closed; empty to one that does not
            speak SOCKS 5.
        text: one line: what is wrong and what to do.
    """

    def __init__(self, answer: bytes, text: str) -> None:
        super().__init__(text)
        self.answer = answer


class QueryError(ProtocolError):
    """Bytes that are no DNS query of the kind that is answered.

    Args:
        answer: what is sent back, never longer than what came; None where nothing is.
        text: one line: what is wrong.
    """

    def __init__(self, answer: bytes | None, text: str) -> None:
        super().__init__(text)
        self.answer = answer


class ProxyHeaderError(ProtocolError):
    """Bytes that are no header of the PROXY protocol, version 2, for TCP."""


class RecordError(ProtocolError):
    """Bytes that are not the data of a DNS record of its type."""


class CertificateError(ProtocolError):
    """Bytes that are no X.509 certificate, as far as they are read."""


class ClientHelloError(ProtocolError):
    """A client of a host that requires TLS did not begin as it must."""

    reason: ClassVar[str]
    """The decision's reason, one of `vsockproxy.policy.reasons.Reason` as text."""


class NotTls(ClientHelloError):
    """The first bytes are no ClientHello."""

    reason = "not_tls"


class SniMismatch(ClientHelloError):
    """The ClientHello names another host than the one asked for, or none."""

    reason = "sni_mismatch"


class LogStreamError(ProtocolError):
    """What comes on a log stream breaks its rules."""


class SignatureError(ProtocolError):
    """No signature of an AWS request, version 4, or a request that cannot be signed."""
