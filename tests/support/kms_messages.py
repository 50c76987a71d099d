"""Answers of a KMS as bytes of HTTP, right ones and those that a fault wants."""

import uuid
from dataclasses import dataclass

from tests.support.kms_faults import Fault

_REASONS = {
    200: "OK",
    204: "No Content",
    307: "Temporary Redirect",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent for one request."""

    data: bytes
    head_bytes: int
    fault: Fault | None = None
    """How it is sent."""


def message(status: int, body: bytes, content_type: str, fault: Fault | None = None) -> Reply:
    """An answer.

    Args:
        status: of it.
        body: whole.
        content_type: of the body.
        fault: what is odd about it; faults of other kinds change nothing here.
    """
    fields = [
        f"x-amzn-RequestId: {uuid.uuid4()}",
        "Cache-Control: no-cache, no-store, must-revalidate, private",
        "Expires: 0",
        "Pragma: no-cache",
    ]
    if fault is Fault.OTHER_CONTENT_TYPE:
        content_type = "text/html"
    if fault is not Fault.NO_CONTENT_TYPE:
        fields.append(f"Content-Type: {content_type}")
    start = ""
    match fault:
        case Fault.CHUNKED:
            fields.append("Transfer-Encoding: chunked")
            body = _in_chunks(body)
        case Fault.WITHOUT_LENGTH:
            fields.append("Connection: close")
        case Fault.TWO_LENGTHS:
            fields += [f"Content-Length: {len(body)}", f"Content-Length: {len(body) + 1}"]
        case Fault.NO_CONTENT:
            status, body = 204, b""
        case Fault.ENDLESS_HEAD:
            fields += [f"X-{number}: {'x' * 1000}" for number in range(1000)]
        case _:
            fields.append(f"Content-Length: {len(body)}")
    if fault is Fault.COMPRESSED:
        fields.append("Content-Encoding: gzip")
    elif fault is Fault.CLOSED_AFTER:
        fields.append("Connection: close")
    elif fault is Fault.REDIRECTED:
        status = 307
        fields.append("Location: https://169.254.169.254/")
    elif fault is Fault.CONTINUED:
        start = "HTTP/1.1 100 Continue\r\n\r\n"
    lines = [f"{start}HTTP/1.1 {status} {_REASONS[status]}", *fields, "", ""]
    head = b"SSH-2.0-OpenSSH_9.2\r\n" if fault is Fault.NOT_HTTP else "\r\n".join(lines).encode()
    return Reply(head + body, len(head), fault)


def _in_chunks(body: bytes) -> bytes:
    half = len(body) // 2
    pieces = (body[:half], body[half:])
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return chunks + b"0\r\nX-Trailer: x\r\n\r\n"
