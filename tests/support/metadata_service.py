"""An instance metadata service on loopback: IMDSv2 in real HTTP, with whims that a test chooses.

Each answer for the role has new credentials (so the number of answers is the number of rotations),
a token is good for a number of requests, and every request is kept.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.support.http_service import QuietHandler, serving_http

WAIT_SECONDS = 30.0

ROLES = "/latest/meta-data/iam/security-credentials/"


@dataclass(slots=True)
class MetadataService:
    """What it says, and what it was asked.

    Args:
        role: the role of the instance; empty for none.
        region: of the instance.
        lifetime_seconds: how long credentials are good.
        requests_per_token: how often a token is taken before it has expired.
        token_status: the status of answers to requests for a token.
        answers: in place of the usual answer to GET of a path: status and body.
    """

    role: str = "the-role"
    region: str = "eu-west-1"
    lifetime_seconds: float = 6 * 3600.0
    requests_per_token: int = 1_000_000
    token_status: int = 200
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    port: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    expirations: dict[str, float] = field(default_factory=dict)
    """When the credentials with an access key expire, for all that were given."""
    tokens: dict[str, int] = field(default_factory=dict)
    """How often each token is still taken."""
    lock: threading.Condition = field(default_factory=threading.Condition)

    @property
    def rotations(self) -> int:
        """How many credentials were given."""
        return len(self.expirations)

    def wait_for_rotations(self, count: int) -> bool:
        """Wait until so many credentials have been given; False if that takes too long."""
        with self.lock:
            return self.lock.wait_for(lambda: self.rotations >= count, WAIT_SECONDS)

    def is_good(self, access_key_id: str) -> bool:
        """Whether such credentials were given, and have not expired."""
        with self.lock:
            return self.expirations.get(access_key_id, 0.0) > time.time()

    def count(self, method: str, path: str) -> int:
        """How often something was asked."""
        with self.lock:
            return self.requests.count((method, path))

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body."""
        with self.lock:
            self.requests.append((method, path))
            if (method, path) == ("PUT", "/latest/api/token"):
                if "x-forwarded-for" in headers or self.token_status == 403:
                    return 403, b"no"
                if "x-aws-ec2-metadata-token-ttl-seconds" not in headers:
                    return 400, b"no time to live"
                token = f"token-{len(self.tokens)}"
                self.tokens[token] = self.requests_per_token
                return self.token_status, token.encode()
            token = headers.get("x-aws-ec2-metadata-token", "")
            if self.tokens.get(token, 0) <= 0:
                return 401, b"Unauthorized"
            self.tokens[token] -= 1
            if path in self.answers:
                return self.answers[path]
            if path == "/latest/meta-data/placement/region":
                return 200, self.region.encode()
            if not self.role or not path.startswith(ROLES):
                return 404, b"Not Found"
            if path == ROLES:
                return 200, self.role.encode()
            if path == ROLES + self.role:
                return 200, self.next_document()
            return 404, b"Not Found"

    def next_document(self) -> bytes:
        """New credentials; the lock is held."""
        key = f"ASIA{len(self.expirations):016d}"
        # The form of a time has no parts of a second.
        expires_at = int(time.time() + self.lifetime_seconds)
        self.expirations[key] = expires_at
        self.lock.notify_all()
        return json.dumps(
            {
                "Code": "Success",
                "LastUpdated": "2026-01-01T00:00:00Z",
                "Type": "AWS-HMAC",
                "AccessKeyId": key,
                "SecretAccessKey": f"secret/{key}+x",
                "Token": f"session/{key}==",
                "Expiration": datetime.fromtimestamp(expires_at, UTC).strftime(
                    "%Y-%m-%dT%H:%M:%SZ"
                ),
            }
        ).encode()


@contextmanager
def serving_metadata(service: MetadataService) -> Iterator[MetadataService]:
    """Serve on a port of loopback, which is put into `service`."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self._serve()

        def do_PUT(self) -> None:
            self._serve()

        def _serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = service.answer(self.command, self.path, headers)
            self.answer(status, body)

    with serving_http(Handler) as service.port:
        yield service
