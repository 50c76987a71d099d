"""What the model's types cannot say of `ingress`, on either side."""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import Final

from vsockproxy.addresses import Endpoint, TcpAddress, VsockAddress
from vsockproxy.config.acme_rules import check_acme
from vsockproxy.config.conversion import Found
from vsockproxy.config.errors import Fault
from vsockproxy.config.model import (
    MAX_SERVICES,
    CertificateSource,
    EnclaveConfig,
    EnclaveEntry,
    EnclaveIngress,
    IngressRoute,
    ParentIngress,
    Shim,
)
from vsockproxy.config.patterns import NamePattern, parse_pattern
from vsockproxy.config.scalars import TO_ACME, TO_STREAMS
from vsockproxy.config.source import join_path

__all__ = ("RESERVED_SERVICES", "check_ingress")

RESERVED_SERVICES: Final = "vsockproxy."
"""What the names of our own services begin with."""


def check_ingress(sections: Sequence[Found]) -> Iterator[Fault]:
    """Yield every breach of a rule for `ingress`, in no particular order."""
    names = {
        each.section.name
        for each in sections
        if isinstance(each.section, EnclaveEntry) and "name" not in each.invalid
    }
    for found in sections:
        match found.section:
            case ParentIngress() | IngressRoute():
                yield from _check_service(found, found.section.service)
                yield from _check_enclave(found, found.section, names)
                if isinstance(found.section, ParentIngress):
                    yield from _check_listener(found, found.section)
                else:
                    yield from _check_server_name(found, found.section)
            case EnclaveConfig(ingress=services) if len(services) > MAX_SERVICES:
                what = f"{len(services)} services, and {MAX_SERVICES} are possible"
                yield Fault(join_path(found.path, "ingress"), what, "write fewer")
            case EnclaveIngress():
                yield from _check_service(found, found.section.service)
                yield from _check_target(found, found.section)
            case CertificateSource():
                yield from _check_certificate(found, found.section)
    yield from _check_duplicates(sections)
    yield from _check_streams(sections)
    yield from check_acme(sections)


def _check_service(found: Found, service: str | None) -> Iterator[Fault]:
    if service is not None and service.startswith(RESERVED_SERVICES):
        what = f"names that begin with {RESERVED_SERVICES} are vsockproxy's own"
        yield Fault(join_path(found.path, "service"), what, "write another name")


def _check_enclave(
    found: Found, section: ParentIngress | IngressRoute, names: set[str | None]
) -> Iterator[Fault]:
    if section.cid is not None and section.name is not None:
        yield Fault(join_path(found.path, "name"), "both cid and name", "write one of them")
    elif section.name is not None and section.name not in names:
        what = f"no entry of enclaves has the name {section.name}"
        yield Fault(join_path(found.path, "name"), what, "write cid, or add a name to an entry")


def _check_listener(found: Found, listener: ParentIngress) -> Iterator[Fault]:
    if found.invalid & {"service", "routes"}:
        return
    if listener.service is None and not listener.routes:
        what = "neither service nor routes: its connections would lead nowhere"
        yield Fault(found.path, what, "write service")
    for key in ("cid", "name"):
        if listener.service is None and getattr(listener, key) is not None:
            what = f"{key} belongs to service, which is missing"
            yield Fault(join_path(found.path, key), what, "write it in the routes, or add service")
    first_paths: dict[str, str] = {}
    for index, route in enumerate(listener.routes):
        path = join_path(found.path, f"routes[{index}]")
        first = first_paths.setdefault(route.sni, path)
        if first != path:
            what = f"{route.sni} has a route already, {first}"
            yield Fault(join_path(path, "sni"), what, "write one route for each name")


def _check_server_name(found: Found, route: IngressRoute) -> Iterator[Fault]:
    if "sni" not in found.invalid and not isinstance(parse_pattern(route.sni), NamePattern):
        what = f"{route.sni} is no name: TLS clients send none but names"
        yield Fault(join_path(found.path, "sni"), what, "write a name, or service at the listener")


def _check_target(found: Found, ingress: EnclaveIngress) -> Iterator[Fault]:
    if "to" in found.invalid:
        return
    path = join_path(found.path, "to")
    mend = "write tcp://127.0.0.1:PORT or unix:///PATH"
    match ingress.to:
        case VsockAddress():
            yield Fault(path, "a service of the command does not listen on vsock", mend)
        case TcpAddress() as to if not _is_loopback(to):
            yield Fault(path, f"{to.host} is not the command's own machine", mend)
        case TcpAddress(port=0):
            yield Fault(path, "nobody listens on port 0", mend)
        case str() as to if ingress.proxy_protocol != "none":
            what = "programs that listen on the stream socket are told the client anyway"
            if to == TO_ACME:
                what = "what answers challenges asks nobody who they are"
            yield Fault(join_path(found.path, "proxy_protocol"), what, "remove it")


def _check_certificate(found: Found, source: CertificateSource) -> Iterator[Fault]:
    if found.invalid:
        return
    mend = "write chain and key, or self_signed in place of them"
    if source.acme is not None:
        for key in ("chain", "key"):
            if getattr(source, key) is not None:
                what = f"{key} beside acme: the certificate can come from one place"
                yield Fault(join_path(found.path, key), what, "write one of them")
    elif source.chain is None:
        yield Fault(join_path(found.path, "chain"), "a certificate without its chain", mend)
    elif source.key is None:
        yield Fault(join_path(found.path, "key"), "a certificate without its key", mend)


def _is_loopback(to: TcpAddress) -> bool:
    return to.host == "localhost" or ip_address(to.host).is_loopback


def _check_duplicates(sections: Iterable[Found]) -> Iterator[Fault]:
    first_paths: dict[str, str] = {}
    for found in sections:
        if isinstance(found.section, EnclaveIngress) and "service" not in found.invalid:
            first = first_paths.setdefault(found.section.service, found.path)
            if first != found.path:
                what = f"{found.section.service} is there already, {first}"
                yield Fault(join_path(found.path, "service"), what, "write one entry for each name")


def _check_streams(sections: Iterable[Found]) -> Iterator[Fault]:
    """A program listens at one worker; another one's links would lead to nobody."""
    wanted = [
        join_path(each.path, "to")
        for each in sections
        if isinstance(each.section, EnclaveIngress)
        and "to" not in each.invalid
        and _leads_to_streams(each.section.to)
    ]
    for found in sections:
        match found.section:
            case EnclaveConfig(workers=workers) if workers != 1:
                for path in wanted:
                    what = f"{TO_STREAMS} needs one worker, and there are {workers}"
                    yield Fault(path, what, "write workers: 1, or tcp://127.0.0.1:PORT here")
            case Shim(streams=None) if "streams" not in found.invalid:
                for path in wanted:
                    what = "the stream socket is turned off"
                    yield Fault(path, what, "remove shim.streams: null, or write another address")


def _leads_to_streams(to: Endpoint | str) -> bool:
    return to == TO_STREAMS
