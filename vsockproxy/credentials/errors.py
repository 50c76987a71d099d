"""What can be wrong with credentials, and with whoever was asked for them."""

from vsockproxy.errors import VsockproxyError

__all__ = ("CredentialsError", "CredentialsRefused")


class CredentialsError(VsockproxyError):
    """There are no credentials, or what came is none; the text says why and what to do.

    No text holds a part of a secret.
    """


class CredentialsRefused(CredentialsError):
    """Who was asked has said no, and will until somebody changes its file."""
