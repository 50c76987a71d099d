"""A service of AWS on loopback (STS) that takes only credentials which are good at the moment."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.http_service import QuietHandler, serving_http
from tests.support.metadata_service import MetadataService

_ANSWER = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
    "<GetCallerIdentityResult><Arn>arn:aws:sts::1:assumed-role/{key}</Arn>"
    "<UserId>U</UserId><Account>1</Account></GetCallerIdentityResult>"
    "</GetCallerIdentityResponse>"
)
_REFUSAL = (
    "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code>"
    "<Message>{key}</Message></Error></ErrorResponse>"
)
_SCOPE = re.compile(r"Credential=([A-Z0-9]+)/\d{8}/([a-z0-9-]+)/sts/")


@dataclass(slots=True)
class SignedService:
    """What it was asked.

    Args:
        metadata: whose credentials it takes.
    """

    metadata: MetadataService
    port: int = 0
    refused: list[str] = field(default_factory=list)
    """Access keys that were not good, or came without their token."""
    is_slow: bool = False
    """Each answer waits until the credentials have been rotated once more."""
    regions: set[str] = field(default_factory=set)


@contextmanager
def serving_signed(service: SignedService) -> Iterator[SignedService]:
    """Serve on a port of loopback, which is put into `service`."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            found = _SCOPE.search(self.headers.get("Authorization", ""))
            key = found[1] if found else "none"
            has_token = self.headers.get("X-Amz-Security-Token") == f"session/{key}=="
            is_good = has_token and service.metadata.is_good(key)
            if found:
                service.regions.add(found[2])
            if not is_good:
                service.refused.append(key)
            if service.is_slow:
                service.metadata.wait_for_rotations(service.metadata.rotations + 1)
            body = (_ANSWER if is_good else _REFUSAL).format(key=key).encode()
            self.answer(200 if is_good else 403, body, "text/xml")

    with serving_http(Handler) as service.port:
        yield service
