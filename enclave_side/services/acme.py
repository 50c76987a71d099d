"""Certificates of an ACME authority: asked over the stream socket, proved by http-01 over ingress.

What decides is pure (`vsockproxy.certificates.acme_order`, `.acme_timing`); here it gets its
connections and its time.
"""

import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from vsockproxy.attestation.tls_binding import KeyOrigin
from vsockproxy.certificates.acme_messages import (
    MAX_BODY_BYTES,
    AcmeError,
    Reply,
    host_and_port,
)
from vsockproxy.certificates.acme_order import AcmeClient, Answer, Ask, Note, Wait
from vsockproxy.certificates.acme_timing import next_order_at, seconds_to_retry
from vsockproxy.certificates.errors import CertificateError
from vsockproxy.certificates.served import ServedCertificate
from vsockproxy.certificates.signing_request import check_names, make_signing_request
from vsockproxy.client.for_trio import open_stream
from vsockproxy.config.model import AcmeAuthority
from vsockproxy.control.logs import EventLog
from vsockproxy.errors import VsockproxyError
from vsockproxy.protocols.http_service import (
    AnswerReader,
    ServiceAnswer,
    ServiceRequest,
    write_post,
    write_request,
)
from vsockproxy.tls_files import TlsFileError, load_authorities

__all__ = ("AcmeAccount", "AcmeCertificate", "ChallengeAnswers", "Orders")

CHALLENGE_PATH: Final = "/.well-known/acme-challenge/"

ORDER_SECONDS: Final = 300.0
"""For an order from its first question to its certificate."""

EXCHANGE_SECONDS: Final = 30.0
"""For one question: connection, handshake and answer."""

GOODBYE_SECONDS: Final = 1.0
"""For the end of a connection that has answered."""

READ_BYTES: Final = 16 * 1024


class ChallengeAnswers:
    """What http-01 challenges are answered with; one for all accounts."""

    def __init__(self) -> None:
        self._by_token: dict[str, str] = {}

    def put(self, by_token: Mapping[str, str]) -> None:
        """Answer these, too."""
        self._by_token |= by_token

    def remove(self, by_token: Mapping[str, str]) -> None:
        """Answer these no more."""
        for token in by_token:
            self._by_token.pop(token, None)

    def answer(self, request: ServiceRequest) -> ServiceAnswer:
        """Answer a request of the authority's, or of anybody's."""
        if request.method not in ("GET", "HEAD"):
            return ServiceAnswer(405, b"only GET\n", headers=(("Allow", "GET, HEAD"),))
        token = request.path.removeprefix(CHALLENGE_PATH)
        found = self._by_token.get(token) if token != request.path else None
        if found is None:
            return ServiceAnswer(404, b"no such challenge\n")
        return ServiceAnswer(200, found.encode("ascii"), "application/octet-stream")


class AcmeAccount:
    """An account with an authority, shared by all services that name it; one order at a time.

    Args:
        authority: the section of the file.
        streams: the path of the stream socket.
        answers: of challenges.
        log: a line for each step.
    """

    def __init__(
        self, authority: AcmeAuthority, streams: str, answers: ChallengeAnswers, log: EventLog
    ) -> None:
        self._authority = authority
        self._streams = streams
        self._answers = answers
        self._log = log
        self._client = AcmeClient(
            authority.directory, ec.generate_private_key(ec.SECP256R1()), authority.contact
        )
        self._turn = trio.Lock()

    async def order(self, names: tuple[str, ...], signing_request: bytes) -> bytes:
        """Order a certificate; the chain in PEM.

        Raises:
            AcmeError: there is none to be had now.
        """
        async with self._turn:
            with trio.move_on_after(ORDER_SECONDS):
                return await self._converse(names, signing_request)
        raise AcmeError(f"the order took over {ORDER_SECONDS:g} s", "refused")

    async def _converse(self, names: tuple[str, ...], signing_request: bytes) -> bytes:
        context = self._tls_context()
        conversation = self._client.order(names, signing_request)
        published: Mapping[str, str] = {}
        reply: Reply | None = None
        try:
            while True:
                try:
                    step = conversation.send(reply)
                except StopIteration as end:
                    return bytes(end.value)
                reply = None
                match step:
                    case Ask():
                        reply = await self._exchange(step, context)
                    case Wait(seconds=seconds):
                        await trio.sleep(seconds)
                    case Note(event=event, fields=fields):
                        self._log.write("info", event, dict(fields))
                    case Answer(by_token=by_token):
                        self._answers.remove(published)
                        published = by_token
                        self._answers.put(published)
        finally:
            conversation.close()
            self._answers.remove(published)

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            load_authorities(context, self._authority.ca)
        except TlsFileError as error:
            raise AcmeError(str(error), "unreachable") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def _exchange(self, ask: Ask, context: ssl.SSLContext) -> Reply:
        """Ask on a connection of its own: an order has a dozen questions, in two months.

        Raises:
            AcmeError: there is no answer.
        """
        host, port, target = host_and_port(ask.url)
        text = f"{host}:{port} did not answer in {EXCHANGE_SECONDS:g} s"
        try:
            with trio.move_on_after(EXCHANGE_SECONDS):
                carrier = await open_stream(host, port, path=self._streams)
                stream = trio.SSLStream(
                    carrier, context, server_hostname=host, https_compatible=True
                )
                return await _ask_on(stream, ask, _authority_of(host, port), target)
        except ssl.SSLCertVerificationError as error:
            roots = self._authority.ca or "the image's own roots; acme.ca names others"
            text = f"the certificate of {host}:{port} is refused: {error.verify_message} ({roots})"
        except (VsockproxyError, OSError) as error:
            text = f"{host}:{port}: {error}"
        raise AcmeError(text, "unreachable")


async def _ask_on(
    stream: trio.SSLStream[trio.SocketStream], ask: Ask, authority: str, target: str
) -> Reply:
    headers = [*ask.headers, ("User-Agent", "vsockproxy"), ("Connection", "close")]
    if ask.method == "POST":
        request = write_post(target, authority, headers, ask.body)
    else:
        request = write_request(ask.method, target, authority, ask.headers)
    reader = AnswerReader(ask.method, MAX_BODY_BYTES)
    try:
        await stream.send_all(request)
        while True:
            answer = reader.receive(bytes(await stream.receive_some(READ_BYTES)))
            if answer is not None:
                break
        with trio.move_on_after(GOODBYE_SECONDS), suppress(trio.BrokenResourceError):
            await stream.receive_some(READ_BYTES)  # an end with its goodbye unread is a reset
            await stream.aclose()
        return Reply(answer.status, dict(answer.headers), answer.body)
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise error.__cause__ from None
        raise ConnectionResetError(f"the connection broke: {error.__cause__ or error}") from None
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


def _authority_of(host: str, port: int) -> str:
    """What the Host header says."""
    text = f"[{host}]" if ":" in host else host
    return text if port == 443 else f"{text}:{port}"


class Orders(Protocol):
    """Whoever orders certificates; an `AcmeAccount`."""

    async def order(self, names: tuple[str, ...], signing_request: bytes) -> bytes:
        """Order a certificate; the chain in PEM.

        Raises:
            AcmeError: there is none to be had now.
        """


@dataclass(slots=True)
class AcmeCertificate:
    """The certificates of one service, as a `Source`.

    Its key is made once and kept: a client that has verified the attestation document of a key
    finds the same one after a renewal.
    """

    account: Orders
    names: tuple[str, ...]
    origin: KeyOrigin = "generated"
    _ordered_at: datetime | None = field(default=None, init=False)
    _key: ec.EllipticCurvePrivateKey | None = field(default=None, init=False, repr=False)

    async def obtain(self, former: ServedCertificate | None, at: datetime) -> ServedCertificate:
        """Order one for the key of the former, or for a key that is made now.

        Raises:
            CertificateError: there is none to be had now.
        """
        key = self._key = self._key or _key_of(former)
        chain = await self.account.order(self.names, make_signing_request(key, self.names))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            certificate = ServedCertificate.join(chain, pem)
            check_names(chain, self.names)
        except CertificateError as error:
            raise AcmeError(
                f"what the authority issued cannot be used: {error}", "refused"
            ) from None
        self._ordered_at = at
        return certificate

    def due_at(self, certificate: ServedCertificate) -> datetime | None:
        """With a third of its time left."""
        ordered_at = self._ordered_at or certificate.not_before
        return next_order_at(certificate.not_before, certificate.not_after, ordered_at)

    def seconds_to_retry(self, error: CertificateError, failures: int, chance: float) -> float:
        """As the authority's limits want it."""
        if not isinstance(error, AcmeError):
            error = AcmeError(str(error), "refused")
        return seconds_to_retry(error, failures, chance)


def _key_of(former: ServedCertificate | None) -> ec.EllipticCurvePrivateKey:
    if former is not None:
        key = load_pem_private_key(former.pem, None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    return ec.generate_private_key(ec.SECP256R1())
