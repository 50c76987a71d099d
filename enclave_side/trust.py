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
    if find_spec("cryptography") is None:
        raise TrustMissing(f"{key} needs the extra trust: pip install 'vsockproxy[trust]'")


def require_acme(key: str) -> None:
    """Demand the extra `acme`, which has `trust` in it.

    Args:
        key: of the file, which needs it.

    Raises:
        TrustMissing: it is not installed.
    """
    if find_spec("acme") is None:
        raise TrustMissing(f"{key} needs the extra acme: pip install 'vsockproxy[acme]'")
