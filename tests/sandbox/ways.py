"""The ways in that the sandboxes of these tests have: one each, so that no other can be taken."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

PROXY_HOST = "127.0.0.1"
HTTP_PROXY_PORT = 3128
SOCKS5_PORT = 1080


class Way(StrEnum):
    """A way in, by its name in the log."""

    NAMES = "names"
    HTTP_PROXY = "http_proxy"
    SOCKS5 = "socks5"


SHIMS: Mapping[Way, Mapping[str, Any]] = {
    Way.NAMES: {"names": True, "http_proxy": None},
    Way.HTTP_PROXY: {"names": False, "http_proxy": f"{PROXY_HOST}:{HTTP_PROXY_PORT}"},
    Way.SOCKS5: {"names": False, "http_proxy": None, "socks5": f"{PROXY_HOST}:{SOCKS5_PORT}"},
}
"""The section `shim` of enclave.yaml."""
