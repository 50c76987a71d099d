"""Which service a connection is for: by its listener, and by the name in its ClientHello. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from vsockproxy.addresses import AddressError, normalise_host
from vsockproxy.config.document import Document
from vsockproxy.config.model import IngressRoute, ParentConfig, ParentIngress
from vsockproxy.config.patterns import NameDepth, NamePattern, contains, parse_pattern
from vsockproxy.errors import Refused
from vsockproxy.protocols.client_hello import ClientHello

__all__ = ("Routes", "Target", "routes_of")


@dataclass(frozen=True, slots=True)
class Target:
    """A service, and who may give it.

    Args:
        service: its name.
        cids: the only enclaves that may; None for all that offer it.
        name: what the file calls the only enclaves that may; None as before.
        source: where the file says so, as `parent.yaml:7`.
    """

    service: str
    cids: frozenset[int] | None
    source: str
    name: str | None = None

    def allows(self, cid: int, name: str | None, service: str) -> bool:
        """Whether an enclave, and one of its name, may give a service."""
        return (
            service == self.service
            and (self.cids is None or cid in self.cids)
            and (self.name is None or name == self.name)
        )


class Routes:
    """The services of one listener.

    Args:
        default: for connections that no route is for; None refuses them.
        routes: patterns of server names, and where they lead.
    """

    def __init__(
        self, default: Target | None, routes: Iterable[tuple[NamePattern, Target]] = ()
    ) -> None:
        self.default = default
        self._exact: dict[str, Target] = {}
        self._wide: list[tuple[NamePattern, Target]] = []
        for pattern, target in routes:
            if pattern.depth is NameDepth.EXACT:
                self._exact[pattern.name] = target
            else:
                self._wide.append((pattern, target))
        # Of two patterns that match a name, one contains the other: the longer name is narrower,
        # and of two alike the one with one label.
        self._wide.sort(key=lambda each: (-len(each[0].name), each[0].depth is NameDepth.ANY_DEPTH))

    @property
    def targets(self) -> list[Target]:
        """Wherever connections may lead."""
        default = [] if self.default is None else [self.default]
        return [*default, *self._exact.values(), *(target for _, target in self._wide)]

    @property
    def need_server_name(self) -> bool:
        """Whether a connection's ClientHello has to be read."""
        return bool(self._exact or self._wide)

    def find(self, hello: ClientHello | None) -> Target:
        """Where a connection leads.

        Args:
            hello: how it begins; None if that was not read, or is no TLS.

        Raises:
            Refused: with `not_listed`, no route is for it and there is no default.
        """
        if hello is not None and hello.server_name is not None:
            target = self._named(hello.server_name)
            if target is not None:
                return target
        if self.default is not None:
            return self.default
        if hello is None or hello.server_name is None:
            raise Refused("not_listed", "the client names no server (SNI), and there is no service")
        raise Refused("not_listed", f"no route for {hello.server_name}: add one, or a service")

    def _named(self, text: str) -> Target | None:
        try:
            host = normalise_host(text)
        except AddressError:
            return None
        if host.address is not None:
            return None
        exact = self._exact.get(host.text)
        if exact is not None:
            return exact
        name = NamePattern(NameDepth.EXACT, host.text)
        return next((target for pattern, target in self._wide if contains(pattern, name)), None)


def routes_of(document: Document, index: int) -> Routes:
    """The routes of `ingress[index]` of a parent's file."""
    config = document.config
    assert isinstance(config, ParentConfig)  # the caller has a parent's file
    listener = config.ingress[index]
    path = f"ingress[{index}]"

    def target(section: ParentIngress | IngressRoute, service: str, path: str) -> Target:
        cids = None if section.cid is None else frozenset((section.cid,))
        # A name is that of the entry under which an enclave was admitted, by CID or by what it has
        # attested.
        return Target(service, cids, document.location(path), section.name)

    default = target(listener, listener.service, path) if listener.service is not None else None
    routes: list[tuple[NamePattern, Target]] = []
    for number, route in enumerate(listener.routes):
        pattern = parse_pattern(route.sni)
        assert isinstance(pattern, NamePattern)  # the file was checked
        routes.append((pattern, target(route, route.service, f"{path}.routes[{number}]")))
    return Routes(default, routes)
