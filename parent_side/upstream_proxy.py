"""The way out through a company's proxy: HTTP CONNECT, to what policy has allowed and checked."""

import socket
from collections.abc import Sequence
from typing import Final

from parent_side.resolver import ResolutionError, Resolver
from vsockproxy.addresses import Destination, IpAddress
from vsockproxy.config.model import UpstreamProxy as Settings
from vsockproxy.dataplane.dialling import DialError, SourceAddresses, dial
from vsockproxy.dataplane.loop import now, timeout
from vsockproxy.dataplane.sockets import peek, send_all
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy.way_out import WayOut
from vsockproxy.protocols.errors import HttpResponseError
from vsockproxy.protocols.http_connect import MAX_HEAD_BYTES, ConnectExchange
from vsockproxy.upstream_credentials import CredentialsNotUsable, read_authorization

__all__ = ("UpstreamProxy",)

MOST_ATTEMPTS: Final = 4
"""Addresses of one name that the proxy is asked to connect to, one after the other."""


class UpstreamProxy:
    """Connects through the proxy, what `way_out` says goes through it.

    Args:
        settings: the `upstream_proxy` section of parent.yaml.
        resolver: for the proxy's own name.
        connect_seconds: the limit of one connection, the proxy's answer included.
        source_addresses: what sockets are bound to.
        log: told when the credentials cannot be used; then every connection is refused.
    """

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver,
        connect_seconds: float,
        source_addresses: SourceAddresses | None,
        log: Log,
    ) -> None:
        self.way_out = WayOut(settings)
        self._resolver = resolver
        self._connect_seconds = connect_seconds
        self._source_addresses = source_addresses
        self._authorization: bytes | None = None
        self._fault = ""
        if settings.credentials is not None:
            try:
                self._authorization = read_authorization(settings.credentials)
            except CredentialsNotUsable as error:
                self._fault = f"upstream_proxy.credentials: {error}"
                log.error("upstream_proxy", text=self._fault)
        if self.way_out.resolves:
            text = "resolves names itself: address guard and denied ranges see literals only"
            log.warning("upstream_proxy", text=f"{settings.address} {text}")

    async def connect(
        self, destinations: Sequence[Destination], enclave: int
    ) -> tuple[socket.socket, Destination]:
        """A tunnel to the first of `destinations` that the proxy reaches, and which one that is.

        Args:
            destinations: at least one.
            enclave: whose share the lookup of the proxy's name belongs to.

        Raises:
            Refused: with dial_refused or dial_timeout; the text has what the proxy answered.
        """
        if self._fault:
            raise Refused("dial_refused", self._fault)
        ends = now() + self._connect_seconds
        addresses = await self._own_addresses(enclave)
        tried = destinations[:MOST_ATTEMPTS]
        refusal: Refused | None = None
        for number, destination in enumerate(tried):
            share_seconds = (ends - now()) / (len(tried) - number)
            if share_seconds <= 0:
                break
            try:
                return await self._tunnel(addresses, destination, share_seconds), destination
            except _NotReached as error:
                refusal = refusal or error
            except Refused as error:
                refusal = error
                break
        text = f"{self._name}: no time was left to ask it"
        raise refusal or Refused("dial_timeout", text)

    @property
    def _name(self) -> str:
        return f"the upstream proxy {self.way_out.address}"

    async def _own_addresses(self, enclave: int) -> Sequence[IpAddress]:
        host = self.way_out.address.host
        if host.address is not None:
            return (host.address,)
        try:
            return await self._resolver.resolve(host.text, enclave=enclave)
        except ResolutionError as error:
            raise Refused("dial_refused", f"{self._name}: {error}") from error

    async def _tunnel(
        self, addresses: Sequence[IpAddress], destination: Destination, seconds: float
    ) -> socket.socket:
        sock: socket.socket | None = None
        try:
            async with timeout(seconds):
                result = await dial(
                    addresses,
                    self.way_out.address.port,
                    timeout_seconds=seconds,
                    source_addresses=self._source_addresses,
                )
                sock = result.socket
                await self._ask(sock, destination)
        except BaseException as error:
            if sock is not None:
                sock.close()
            match error:
                case DialError():
                    reason = "dial_timeout" if error.kind == "timed_out" else "dial_refused"
                    raise Refused(reason, f"{self._name}: {error.text}") from error
                case TimeoutError() if error.errno is None:
                    text = f"{self._name}: {destination}: no answer in {seconds:g} s"
                    raise _NotReached("dial_timeout", text) from error
                case OSError():
                    text = f"{self._name}: {destination}: {error.strerror}"
                    raise _NotReached("dial_refused", text) from error
            raise
        return sock

    async def _ask(self, sock: socket.socket, destination: Destination) -> None:
        """Make `sock` a tunnel; what the destination sends first is left in it, to be read.

        Raises:
            Refused: the proxy said no, or nothing that makes sense.
            OSError: the connection failed.
        """
        exchange = ConnectExchange(destination, self._authorization)
        await send_all(sock, exchange.request)
        answer = None
        try:
            while answer is None:
                data = await peek(sock, MAX_HEAD_BYTES)
                if not data:
                    raise exchange.eof()
                answer = exchange.receive(data)
                sock.recv(len(data) - (len(answer.trailing) if answer is not None else 0))
        except HttpResponseError as error:
            raise _NotReached("dial_refused", f"{self._name} {error.text}") from error
        if not answer.is_tunnel:
            text = f"{self._name} {answer.text}: {destination}"
            raise (_NotReached if answer.may_differ else Refused)(answer.reason, text)


class _NotReached(Refused):
    """One destination was not reached; the next one may be."""
