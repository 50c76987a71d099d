"""Whether the packages of the extra `trust` are here, which not every image needs."""

from importlib.util import find_spec

from vsockproxy.errors import VsockproxyError

__all__ = ("TrustMissing", "require_acme", "require_trust")


class TrustMissing(VsockproxyError):
    """The file wants what needs a package of the extra `trust`."""


def require_trust(key: str) -> None:
    """Demand the extra.

    Args:
        key: of the file, which needs it.

    Raises:
        TrustMissing: it is not installed.
    """
    _require("cryptography", key, "trust")


def require_acme(key: str) -> None:
    """Demand the extra `acme`, which has `trust` in it.

    Args:
        key: of the file, which needs it.

    Raises:
        TrustMissing: it is not installed.
    """
    _require("acme", key, "acme")


def _require(package: str, key: str, extra: str) -> None:
    if find_spec(package) is None:
        raise TrustMissing(f"{key} needs the extra {extra}: pip install 'vsockproxy[{extra}]'")
