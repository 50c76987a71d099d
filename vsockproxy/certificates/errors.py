"""What is wrong with a certificate."""

from vsockproxy.errors import VsockproxyError

__all__ = ("CertificateError",)


class CertificateError(VsockproxyError):
    """A certificate or its key cannot be had, or not be used; the text never holds key material."""
