"""KMS as the proxy reaches it: TLS from inside the enclave, on streams that both lists allow."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from vsockproxy.attestation.kms_errors import (
    AnswerRefused,
    CallNotAllowed,
    CallUnusable,
    KmsProxyError,
    KmsUnavailable,
)
from vsockproxy.client.errors import NotAllowed, StreamRefused
from vsockproxy.client.for_trio import open_stream
from vsockproxy.config.endpoint_url import parse_endpoint_url
from vsockproxy.credentials.errors import CredentialsError
from vsockproxy.credentials.regions import endpoint_host, parse_region
from vsockproxy.errors import VsockproxyError
from vsockproxy.services.connection_pool import ConnectionPool, is_quiet

__all__ = ("KmsEndpoint", "KmsEndpoints", "tls_context")

CONNECTIONS_AT_ONCE: Final = 64
"""To one endpoint; calls beyond them wait for their turn."""

IDLE_SECONDS: Final = 30.0
"""How long a connection to KMS is kept that no call uses."""

HANDSHAKE_SECONDS: Final = 10.0

MAX_ENDPOINTS: Final = 64
"""Regions that one process speaks to: a region is a word of the program's."""

SERVICE: Final = "kms"
FIPS_SERVICE: Final = "kms-fips"
HTTPS_PORT: Final = 443


@dataclass(frozen=True, slots=True)
class KmsEndpoint:
    """One region's KMS.

    Args:
        host: what certificates have to name.
        port: of TCP.
        pool: the connections to it.
    """

    host: str
    port: int
    pool: ConnectionPool = field(repr=False)

    @property
    def authority(self) -> str:
        """What the Host header says, which is signed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"


class KmsEndpoints:
    """Finds the endpoint of a region, and keeps it.

    Args:
        overrides: what the configuration says of regions: their URLs.
        streams: the path of the stream socket.
        context: checks certificates.
        is_fips: whether endpoints are those with cryptography after FIPS 140.
        nursery: runs the pools.
    """

    def __init__(
        self,
        overrides: Mapping[str, str],
        streams: str,
        context: ssl.SSLContext,
        nursery: trio.Nursery,
        *,
        is_fips: bool,
    ) -> None:
        self._overrides = overrides
        self._streams = streams
        self._context = context
        self._nursery = nursery
        self._is_fips = is_fips
        self._endpoints: dict[str, KmsEndpoint] = {}

    def of(self, region: str) -> KmsEndpoint:
        """The endpoint of a region.

        Raises:
            CallUnusable: no region can have that name, or there are too many.
        """
        found = self._endpoints.get(region)
        if found is None:
            if len(self._endpoints) >= MAX_ENDPOINTS:
                text = f"calls went to {MAX_ENDPOINTS} regions already: start the enclave again"
                raise CallUnusable("region", text)
            host, port = self._address(region)
            pool = ConnectionPool(
                partial(self._open, host, port),
                at_once=CONNECTIONS_AT_ONCE,
                idle_seconds=IDLE_SECONDS,
                is_alive=is_quiet,
            )
            found = self._endpoints[region] = KmsEndpoint(host, port, pool)
            self._nursery.start_soon(pool.run)
        return found

    def _address(self, region: str) -> tuple[str, int]:
        if region in self._overrides:
            destination = parse_endpoint_url(self._overrides[region])
            return destination.host.text, destination.port
        try:
            name = FIPS_SERVICE if self._is_fips else SERVICE
            return endpoint_host(name, parse_region(region)), HTTPS_PORT
        except CredentialsError as error:
            raise CallUnusable("region", f"the request is signed for no region: {error}") from None

    async def _open(self, host: str, port: int) -> trio.abc.Stream:
        """A connection with TLS.

        Raises:
            KmsProxyError: it cannot be had.
        """
        try:
            carrier = await open_stream(host, port, path=self._streams)
        except NotAllowed as error:
            raise CallNotAllowed(error.reason, _of(error, host, port)) from None
        except StreamRefused as error:
            raise KmsUnavailable(error.reason, _of(error, host, port)) from None
        except (VsockproxyError, OSError) as error:
            raise KmsUnavailable("streams", f"the stream socket: {error}") from None
        stream = trio.SSLStream(carrier, self._context, server_hostname=host, https_compatible=True)
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                await stream.do_handshake()
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(carrier)
            if isinstance(error, trio.TooSlowError):
                text = f"{host}:{port} did not finish the TLS handshake in {HANDSHAKE_SECONDS:g} s"
                raise KmsUnavailable("tls_timeout", text) from None
            if isinstance(error, trio.BrokenResourceError):
                raise _tls_failure(host, port, error.__cause__) from None
            raise
        return stream


def tls_context(ca: str | None) -> ssl.SSLContext:
    """What checks KMS's certificate.

    Args:
        ca: a PEM file with the roots; None for those of the system, which an image has to bring.

    Raises:
        OSError: the file cannot be read, or holds no certificate (ssl.SSLError).
    """
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _of(error: StreamRefused, host: str, port: int) -> str:
    return error.text if host in error.text else f"{host}:{port}: {error.text}"


def _tls_failure(host: str, port: int, cause: BaseException | None) -> KmsProxyError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        text = (
            f"the certificate of {host}:{port} is not to be trusted: {cause.verify_message}; "
            "the roots are those of kms.ca, or else the image's own"
        )
        return AnswerRefused("certificate", text)
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    text = f"the TLS handshake with {host}:{port} failed"
    return KmsUnavailable("tls", f"{text}: {reason}" if reason else text)
