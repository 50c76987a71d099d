"""What may be asked of the admin endpoint; everything else is refused. Pure."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_service import ServiceRequest
from vsockproxy.worker_reports import MAX_STREAMS_LISTED

__all__ = ("DEFAULT_STREAMS", "PATHS", "AdminRequest", "read_admin_request")

PATHS: Final = ("/", "/healthz", "/readyz", "/metrics", "/status", "/streams")

DEFAULT_STREAMS: Final = 1000
"""Rows of /streams where the request does not say how many."""

_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(:[0-9]{1,5})?\Z")
_LIMIT: Final = re.compile(r"limit=([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """A request that is answered.

    Args:
        path: one of `PATHS`.
        accept: the header Accept.
        limit: rows of /streams.
    """

    path: str
    accept: str = ""
    limit: int = DEFAULT_STREAMS


def read_admin_request(request: ServiceRequest, *, is_tcp: bool) -> AdminRequest:
    """Check a request.

    Args:
        request: as it came.
        is_tcp: whether it came over TCP. A page of the web may then have led a browser here, under
            a name of its own that it made resolve to this machine (DNS rebinding): so Host has to
            be this machine's.

    Raises:
        HttpRequestError: 400, 403, 404 or 405, with a text for people.
    """
    if is_tcp and not _is_of_this_machine(request.headers.get("host", "")):
        raise HttpRequestError(403, "Host has to be localhost, 127.0.0.1 or [::1] here")
    path, _, query = request.target.partition("?")
    if path not in PATHS:
        raise HttpRequestError(404, f"there are {', '.join(PATHS)}")
    if request.method not in ("GET", "HEAD"):
        raise HttpRequestError(405, "GET and HEAD are answered, nothing can be changed")
    limit = DEFAULT_STREAMS
    if path == "/streams" and query:
        limit = _limit(query)
    return AdminRequest(path, request.headers.get("accept", ""), limit)


def _limit(query: str) -> int:
    found = _LIMIT.fullmatch(query)
    if found is None or int(found[1]) not in range(1, MAX_STREAMS_LISTED + 1):
        raise HttpRequestError(400, f"the query may be limit=N, 1-{MAX_STREAMS_LISTED}")
    return int(found[1])


def _is_of_this_machine(text: str) -> bool:
    found = _HOST.match(text)
    if found is None:
        return False
    host = found["host"].strip("[]").lower()
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
