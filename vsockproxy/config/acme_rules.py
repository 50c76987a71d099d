"""What the model's types cannot say of certificates by ACME, which concern several services."""

from collections.abc import Iterator, Sequence
from typing import Final

from vsockproxy.config.conversion import Found
from vsockproxy.config.errors import Fault
from vsockproxy.config.model import (
    CertificateSource,
    EnclaveConfig,
    EnclaveIngress,
    IngressTls,
    Shim,
)
from vsockproxy.config.scalars import TO_ACME
from vsockproxy.config.source import join_path

__all__ = ("check_acme",)

_AROUND_ACME: Final = (EnclaveConfig, EnclaveIngress, IngressTls, CertificateSource)
"""Where one of these is broken already, nobody knows what was meant."""


def check_acme(sections: Sequence[Found]) -> Iterator[Fault]:
    """Yield every breach, in no particular order.

    An authority asks for the proof of names on port 80, so somebody has to answer there.
    """
    answering: list[str] = []
    wanting: list[str] = []
    for found in sections:
        if not isinstance(found.section, EnclaveIngress):
            continue
        tls = found.section.tls
        if "to" not in found.invalid and found.section.to == TO_ACME:
            answering.append(join_path(found.path, "to"))
            if tls is not None:
                what = "the authority asks without TLS"
                yield Fault(join_path(found.path, "tls"), what, "remove it")
        elif tls is not None and _has_acme(tls):
            wanting.append(join_path(found.path, "tls.certificate.acme"))
            if not tls.names:
                what = "an authority issues certificates for names, and there are none"
                yield Fault(join_path(found.path, "tls.names"), what, "write the service's names")
    is_broken = any(found.invalid for found in sections if isinstance(found.section, _AROUND_ACME))
    if wanting and not answering and not is_broken:
        what = "no service answers the authority's challenges"
        mend = f"add {{service: acme, to: {TO_ACME}}}, which the parent listens for on port 80"
        yield Fault(wanting[0], what, mend)
    for path in answering[1:]:
        yield Fault(path, f"{TO_ACME} is there already, {answering[0]}", "write one entry for it")
    if answering and not wanting and not is_broken:
        what = "no service has a certificate by ACME"
        yield Fault(answering[0], what, "remove it, or write tls.certificate.acme at a service")
    for found in sections:
        if isinstance(found.section, Shim) and found.section.streams is None:
            for path in wanting if "streams" not in found.invalid else ():
                what = "the authority is asked over the stream socket, which is turned off"
                yield Fault(path, what, "remove shim.streams: null")


def _has_acme(tls: IngressTls) -> bool:
    return isinstance(tls.certificate, CertificateSource) and tls.certificate.acme is not None
