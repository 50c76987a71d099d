"""The PEM files that a configuration names for TLS: read, checked, loaded.

`vsockproxy check` and a start read them all, to say what is wrong before anything runs; a worker
loads them for its connections.
"""

import os
import ssl
from collections.abc import Iterator
from typing import Final

from vsockproxy.config.document import Document, line_of
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.model import (
    AcmeAuthority,
    CertificateSource,
    EnclaveConfig,
    ForwardTls,
    IngressTls,
)
from vsockproxy.errors import VsockproxyError

__all__ = (
    "KMS_ROOTS",
    "TlsFileError",
    "check_tls_files",
    "load_authorities",
    "load_certificate",
)

MAX_PEM_BYTES: Final = 4 * 1024 * 1024
"""All roots of a Debian are 220 KiB."""

KMS_ROOTS: Final = "write a PEM file with roots, or leave ca out for the image's own"
TEST_ROOT: Final = (
    "write a PEM file with the certificate and the key of a test root, or one that can be made"
)
"""What to do about `kms.ca`, and about `attestation.root`."""

_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
_KEY: Final = "PRIVATE KEY-----"


class TlsFileError(VsockproxyError):
    """A PEM file that cannot be used.

    Args:
        what: what is wrong, with the file.
        mend: what to do.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}: {mend}")
        self.what = what
        self.mend = mend


def load_authorities(context: ssl.SSLContext, path: str | None) -> None:
    """Trust the authorities of a PEM file, or without one those of this machine.

    Raises:
        TlsFileError: there are none.
    """
    if path is None:
        context.load_default_certs()
        # Those of a directory are read when they are needed, and do not count here.
        if not context.cert_store_stats()["x509"] and not ssl.get_default_verify_paths().capath:
            raise TlsFileError(
                "this machine knows no authorities", "add the package ca-certificates, or write ca"
            )
        return
    text = _read(path)
    if _CERTIFICATE not in text:
        raise TlsFileError(f"{path} holds no certificate", "give a PEM file with the authority's")
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise _broken(path, error) from None


def load_certificate(context: ssl.SSLContext, path: str, key: str | None = None) -> None:
    """Present the certificate and the chain of a PEM file.

    Args:
        context: of the connections.
        path: the file.
        key: the file with the key; without it, the key is in `path` too.

    Raises:
        TlsFileError: it has no such certificate or key, or the key is encrypted.
    """
    holder = key or path
    # OpenSSL's own errors say less.
    for file, wanted, what in (
        (path, _CERTIFICATE, "certificate"),
        (holder, _KEY, "private key"),
    ):
        if wanted not in _read(file):
            mend = "give a PEM file with the certificate, its chain, and its key"
            raise TlsFileError(f"{file} holds no {what}", mend)

    def password() -> str:
        raise TlsFileError(f"the key in {holder} is encrypted", "write it without a password")

    try:
        context.load_cert_chain(path, key, password=password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            whose = "its first certificate" if key is None else f"the first certificate in {path}"
            what = f"the key in {holder} is not that of {whose}"
            raise TlsFileError(what, "give the certificate, its chain, and its own key") from None
        raise _broken(path, error) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def check_tls_files(document: Document) -> Iterator[ConfigError]:
    """What is wrong with the files that an enclave's configuration names."""
    config = document.config
    if not isinstance(config, EnclaveConfig):
        return
    for index, forward in enumerate(config.forwards):
        if forward.tls:
            section = forward.tls if isinstance(forward.tls, ForwardTls) else ForwardTls()
            yield from _check_forward(document, f"forwards[{index}].tls", section)
    for index, ingress in enumerate(config.ingress):
        if ingress.tls is not None:
            yield from _check_ingress(document, f"ingress[{index}].tls", ingress.tls)
    if config.kms is not None and config.kms.ca is not None:
        try:
            load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), config.kms.ca)
        except TlsFileError as error:
            yield _located(document, "kms.ca", TlsFileError(error.what, KMS_ROOTS))
    if config.attestation is not None and config.attestation.root and config.has_software_nsm:
        yield from _check_test_root(document, config.attestation.root)


def _check_forward(document: Document, path: str, section: ForwardTls) -> Iterator[ConfigError]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        load_authorities(context, section.ca)
    except TlsFileError as error:
        key = path if section.ca is None else f"{path}.ca"
        yield _located(document, key, error)
    if section.client_cert is not None:
        try:
            load_certificate(context, section.client_cert)
        except TlsFileError as error:
            yield _located(document, f"{path}.client_cert", error)


def _check_ingress(document: Document, path: str, section: IngressTls) -> Iterator[ConfigError]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if section.client_ca is not None:
        try:
            load_authorities(context, section.client_ca)
        except TlsFileError as error:
            yield _located(document, f"{path}.client_ca", error)
    match section.certificate:
        case CertificateSource(chain=str(chain), key=str(key)):
            try:
                load_certificate(context, chain, key)
            except TlsFileError as error:
                yield _located(document, f"{path}.certificate", error)
        case CertificateSource(acme=AcmeAuthority(ca=ca)):
            try:
                load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca)
            except TlsFileError as error:
                key = f"{path}.certificate.acme"
                yield _located(document, key if ca is None else f"{key}.ca", error)


def _check_test_root(document: Document, path: str) -> Iterator[ConfigError]:
    """That of a software module, which is made where it is absent."""
    folder = os.path.dirname(path)
    try:
        if os.path.lexists(path):
            load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), path)
        elif not os.path.isdir(folder):
            raise TlsFileError(f"{path} cannot be made: there is no directory {folder}", "")
    except TlsFileError as error:
        yield _located(document, "attestation.root", TlsFileError(error.what, TEST_ROOT))


def _located(document: Document, path: str, error: TlsFileError) -> ConfigError:
    return ConfigError(document.file, line_of(document.lines, path), path, error.what, error.mend)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(data) > MAX_PEM_BYTES:
        raise TlsFileError(f"{path} has more than {MAX_PEM_BYTES} bytes", "give a PEM file")
    return data.decode("ascii", "ignore")  # what is between the blocks may be in any language


def _unreadable(path: str, error: OSError) -> TlsFileError:
    reason = (error.strerror or str(error)).lower()
    return TlsFileError(f"{path} cannot be read: {reason}", "check the path and its permissions")


def _broken(path: str, error: Exception) -> TlsFileError:
    reason = getattr(error, "reason", None) or str(error)
    what = f"{path} is broken: {reason.replace('_', ' ').lower()}"
    return TlsFileError(what, "give a PEM file that openssl reads")
