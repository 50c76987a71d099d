"""Where a service's certificate comes from: made here, read from the image, or issued."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vsockproxy.attestation.tls_binding import KeyOrigin
from vsockproxy.certificates.errors import CertificateError
from vsockproxy.certificates.renewal import renewal_time, retry_seconds
from vsockproxy.certificates.self_signed import make_self_signed, renew_self_signed
from vsockproxy.certificates.served import MAX_PEM_BYTES, ServedCertificate
from vsockproxy.config.model import AcmeAuthority, CertificateSource, EnclaveIngress

if TYPE_CHECKING:
    from enclave_side.services.acme import AcmeAccount

__all__ = ("AccountOf", "FromFiles", "SelfSigned", "Source", "source_of")

AccountOf = Callable[[AcmeAuthority], "AcmeAccount"]
"""The account with an authority: one for all services that name it alike."""


class Source(Protocol):
    """Gets a certificate, and says when the next one is due."""

    @property
    def origin(self) -> KeyOrigin:
        """Where its keys come from."""

    async def obtain(self, former: ServedCertificate | None, at: datetime) -> ServedCertificate:
        """The certificate to present from now on.

        Args:
            former: what is presented, if there is one.
            at: the time.

        Raises:
            CertificateError: there is none to be had now.
        """

    def due_at(self, certificate: ServedCertificate) -> datetime | None:
        """When the one after this is to be obtained; None for never."""

    def seconds_to_retry(self, error: CertificateError, failures: int, chance: float) -> float:
        """How long to wait after so many failures in a row, of which `error` is the last.

        Args:
            error: what `obtain` raised.
            failures: 1 or more.
            chance: a random number from 0 up to 1.
        """


class _AtLeisure:
    """Sources that nobody counts the attempts of."""

    __slots__ = ()

    def seconds_to_retry(self, error: CertificateError, failures: int, chance: float) -> float:
        """Longer each time."""
        del error
        return retry_seconds(failures, chance)


@dataclass(frozen=True, slots=True)
class SelfSigned(_AtLeisure):
    """Makes a key once, and certificates for it that it signs itself."""

    service: str
    names: tuple[str, ...]
    origin: KeyOrigin = "generated"

    async def obtain(self, former: ServedCertificate | None, at: datetime) -> ServedCertificate:
        """A certificate for the key of the former, or for a key that is made now."""
        await trio.lowlevel.checkpoint()
        serial = x509.random_serial_number()
        if former is not None:
            return renew_self_signed(former, self.service, self.names, at, serial)
        key = ec.generate_private_key(ec.SECP256R1())
        return make_self_signed(key, self.service, self.names, at, serial)

    def due_at(self, certificate: ServedCertificate) -> datetime | None:
        """Well before its end."""
        return renewal_time(certificate.not_before, certificate.not_after)


@dataclass(frozen=True, slots=True)
class FromFiles(_AtLeisure):
    """Reads them from files of the image, which do not change while it runs."""

    chain: str
    key: str
    origin: KeyOrigin = "image"

    async def obtain(self, former: ServedCertificate | None, at: datetime) -> ServedCertificate:
        """What the files hold."""
        del former, at
        await trio.lowlevel.checkpoint()
        try:
            return ServedCertificate.join(_read(self.chain), _read(self.key))
        except CertificateError as error:
            raise CertificateError(f"{self.chain}, {self.key}: {error}") from None

    def due_at(self, certificate: ServedCertificate) -> datetime | None:
        """Never: the image has no other."""
        del certificate
        return None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from None


def source_of(ingress: EnclaveIngress, account_of: "AccountOf | None") -> Source:
    """What the file says of a service with `tls`.

    Args:
        ingress: the service.
        account_of: gives the account with an authority; None where no service needs one.
    """
    assert ingress.tls is not None  # only those are asked for
    names = tuple(ingress.tls.names)
    match ingress.tls.certificate:
        case CertificateSource(chain=str(chain), key=str(key)):
            return FromFiles(chain, key)
        case CertificateSource(acme=AcmeAuthority() as authority):
            assert account_of is not None  # made where there is such a section
            # Here, since it loads the packages of the extra `acme`.
            from enclave_side.services.acme import AcmeCertificate

            return AcmeCertificate(account_of(authority), names)
        case _:  # a rule of the configuration: nothing of it
            return SelfSigned(ingress.service, names)
