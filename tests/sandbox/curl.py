"""curl in a sandbox, with any options."""

from tests.sandbox.clients.table import CLIENTS
from tests.sandbox.sandboxes import Done, Sandbox, need
from tests.sandbox.ways import Way
from tests.support.certificates import Authority

COULD_NOT_RESOLVE = 6
HTTP_ERROR = 22
TLS_CONNECT_ERROR = 35
RECEIVE_ERROR = 56
"""CURLE_RECV_ERROR; for a CONNECT that is refused, too."""
PROXY_ERROR = 97
"""CURLE_PROXY: a reply of a SOCKS proxy other than success."""


def curl(sandbox: Sandbox, way: Way, authority: Authority, *words: str, typed: str = "") -> Done:
    """Run curl by a way in, with `typed` on its stdin."""
    need("curl")
    client = CLIENTS["curl"]
    return sandbox.run(
        *(*client.command, *words),
        typed=typed,
        CURL_CA_BUNDLE=str(authority.file),
        **client.uses[way].variables,
    )
