"""Serves the streams that the parent opens to the services of this enclave."""

import socket
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from typing import Final

from enclave_side.attestation_desk import AttestationDesk
from enclave_side.challenge_socket import challenge_address
from enclave_side.command_sockets import CommandSockets, IpVersion
from enclave_side.listening_programs import ListeningPrograms
from enclave_side.service_identity import Identity, IdentityError, ServiceIdentity
from enclave_side.tls_ingress import TlsIngress
from vsockproxy.addresses import Endpoint, TcpAddress
from vsockproxy.config.document import Document
from vsockproxy.config.model import EnclaveConfig, EnclaveIngress
from vsockproxy.config.scalars import TO_ACME, TO_STREAMS
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import arm_reset, reset_socket
from vsockproxy.dataplane.dialling import DialError, connect, connect_socket
from vsockproxy.dataplane.loop import CancelledError, now
from vsockproxy.dataplane.sockets import send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.stream_tasks import serve_stream
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.nsm_device import Nsm
from vsockproxy.protocols.proxy_v2 import ProxyHeader, SocketAddress
from vsockproxy.session import ErrorCode, Open, Opened
from vsockproxy.session.messages import MAX_ADDRESS_BYTES
from vsockproxy.worker_messages import Certificate, SocketsWanted

__all__ = ("WAY", "Ingress")

WAY: Final = "ingress"


class Ingress:
    """The services, one task for each stream until the relay takes over.

    Args:
        document: the enclave's file.
        log: for the audit lines.
        ask: asks the supervisor for sockets of the command's network; None where that is ours.
    """

    def __init__(
        self, document: Document, log: Log, ask: Callable[[SocketsWanted], None] | None
    ) -> None:
        config = document.config
        assert isinstance(config, EnclaveConfig)  # the supervisor loaded an enclave's file
        self._services = {each.service: each for each in config.ingress}
        self._sources = {
            each.service: document.location(f"ingress[{index}]")
            for index, each in enumerate(config.ingress)
        }
        self.programs = ListeningPrograms(
            [each.service for each in config.ingress if each.to == TO_STREAMS]
        )
        streams = config.shim.streams
        self._challenges = None if streams is None else challenge_address(streams)
        self._identities = {
            each.service: ServiceIdentity(each.service, each.tls)
            for each in config.ingress
            if each.tls is not None
        }
        self._desk = AttestationDesk(Nsm(config.nsm_location), log)
        self._limits = config.limits
        self._log = log
        versions: tuple[IpVersion, ...] = (4, 6) if ask is not None else ()
        self._command_sockets = {
            version: CommandSockets(version, ask) for version in versions if ask is not None
        }

    @property
    def names(self) -> Collection[str]:
        """What the services are called."""
        return self._services

    def close(self) -> None:
        """Take no new streams."""
        for sockets in self._command_sockets.values():
            sockets.close()
        self.programs.close()

    def sockets_arrived(self, ip_version: IpVersion, sockets: Sequence[socket.socket]) -> None:
        """Sockets of the command's network came, which were asked for."""
        self._command_sockets[ip_version].arrived(sockets)

    def certificate_came(self, message: Certificate, descriptor: int) -> None:
        """A service with `tls` presents another certificate from now on."""
        identity = self._identities.get(message.service)
        if identity is None:
            return
        try:
            identity.renew(message, descriptor)
        except IdentityError as error:
            self._log.error("certificate_failed", service=message.service, text=str(error))

    def serve(self, end: StreamEnd, request: Open) -> None:
        """Serve one stream; returns at once."""
        service = self._services.get(request.service)
        # What the parent says of the client is not taken further than it can be an address.
        client, server = SocketAddress.parse(request.client), SocketAddress.parse(request.server)
        record = StreamRecord(
            host=request.service,
            port=_port_of(service),
            way=WAY,
            opened_at=now(),
            stream=end.stream.id,
            client=None if client is None else str(client),
            rule=self._sources.get(request.service),
        )
        if service is None or request.dedicated:
            reason, text = "limit", "services of an enclave have no dedicated streams"
            if service is None:
                reason = "not_listed"
                text = f"this enclave offers no service {request.service}: add it to ingress"
            record.decide(self._log, allowed=False, reason=reason, text=text)
            end.refuse(reason, text)
            return
        record.follow(end, is_in_enclave=True)

        def closed(end: StreamEnd) -> None:
            record.close(self._log, ended=end.ended, now=now())

        work = self._serve(service, end, ProxyHeader(client, server), record)
        serve_stream(end, work, f"stream {end.stream.id} to {request.service}", closed)

    async def _serve(
        self, service: EnclaveIngress, end: StreamEnd, header: ProxyHeader, record: StreamRecord
    ) -> None:
        sock: socket.socket | None = None
        identity: Identity | None = None
        try:
            try:
                if service.tls is not None:
                    identity = await self._identities[service.service].get()
                sock = await self._connect(service, header)
                arm_reset(sock)
                if service.proxy_protocol == "v2":
                    await send_all(sock, header.encode())
            except Refused as refused:
                record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
                end.refuse(refused.reason, refused.text)
                return
            except OSError as error:
                text = f"{service.to}: {error}"
                record.decide(self._log, allowed=False, reason="dial_refused", text=text)
                end.refuse("dial_refused", text)
                return
            record.address = _as_address(service.to)
            record.decide(self._log, allowed=True, reason="listed")
            end.accept(Opened(address=record.address))
            local, sock = sock, None
            if service.tls is None or identity is None:
                end.attach(local)
                return
            desk = self._desk if service.tls.attestation else None
            await TlsIngress(
                end, local, identity, desk, self._limits.handshake, self._log, record
            ).serve()
        except CancelledError:
            if not end.is_closed:  # not the stream's end but the process's
                raise
        except Exception:  # a fault of ours must not leave the stream unanswered
            end.reset(ErrorCode.CUT)
            raise
        finally:
            if sock is not None:
                reset_socket(sock)

    async def _connect(self, service: EnclaveIngress, header: ProxyHeader) -> socket.socket:
        to = service.to
        try:
            if to == TO_ACME and self._challenges is not None:
                to = self._challenges
            if isinstance(to, str):
                return await self.programs.connect(service.service, header)
            if isinstance(to, TcpAddress) and self._command_sockets:
                return await self._connect_inside(to)
            return await connect(to, timeout_seconds=self._limits.connect)
        except DialError as error:
            reason = "dial_timeout" if error.kind == "timed_out" else "dial_refused"
            raise Refused(reason, error.text) from error

    async def _connect_inside(self, to: TcpAddress) -> socket.socket:
        address = ip_address("127.0.0.1" if to.host == "localhost" else to.host)
        sock = await self._command_sockets[4 if address.version == 4 else 6].take()
        try:
            await connect_socket(sock, address, to.port, timeout_seconds=self._limits.connect)
        except BaseException:
            sock.close()
            raise
        return sock


def _port_of(service: EnclaveIngress | None) -> int:
    return service.to.port if service is not None and isinstance(service.to, TcpAddress) else 0


def _as_address(to: Endpoint | str) -> str:
    """What OPENED may hold of an address: the path of a unix socket may be longer."""
    text = str(to).removeprefix("tcp://")
    return text.encode("ascii", "replace")[:MAX_ADDRESS_BYTES].decode()
