"""Attestation documents for whoever asks over TLS: so many a second, and no queue that grows."""

from typing import Final

from vsockproxy.addresses import IpAddress
from vsockproxy.attestation.nsm_errors import NsmError
from vsockproxy.attestation.tls_binding import KeyOrigin, bound_fields
from vsockproxy.dataplane.blocking_calls import BlockingCalls, TooManyWait
from vsockproxy.dataplane.loop import now, timeout
from vsockproxy.errors import VsockproxyError
from vsockproxy.log import Log
from vsockproxy.nsm_device import Nsm
from vsockproxy.policy.client_buckets import ClientBuckets
from vsockproxy.policy.token_bucket import TokenBucket

__all__ = ("AttestationDesk", "NoDocument")

RATE: Final = 100.0
BURST: Final = 256.0
"""Documents in a second, and after a quiet time at once. The module makes some hundred a second."""

CLIENT_RATE: Final = 25.0
CLIENT_BURST: Final = 208.0
"""The same for one client's address, or network of IPv6. Many programs may stand behind one, and
begin at once; after that a quarter of all is theirs."""

MOST_WAITING: Final = 256
ANSWER_SECONDS: Final = 10.0
"""How long one who asks waits for the module, which may take 120 s in trouble."""

REPORT_SECONDS: Final = 1.0
"""Refusals within it are one line of the log."""


class NoDocument(VsockproxyError):
    """There is none now.

    Args:
        status: of HTTP.
        text: one line for whoever asked.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class AttestationDesk:
    """Asks the module, in a thread.

    Args:
        nsm: the module.
        log: for refusals.
    """

    def __init__(self, nsm: Nsm, log: Log) -> None:
        self._nsm = nsm
        self._log = log
        self._calls: BlockingCalls[bytes] = BlockingCalls("nsm", MOST_WAITING)
        self._bucket = TokenBucket()
        self._clients = ClientBuckets()
        self._refused = 0
        self._reported_at = -REPORT_SECONDS

    async def document(
        self, nonce: bytes, public_key: bytes, origin: KeyOrigin, client: IpAddress | None
    ) -> bytes:
        """A fresh document that binds a key.

        Args:
            nonce: to be in it.
            public_key: DER of its SubjectPublicKeyInfo.
            origin: where the key comes from.
            client: who asks, as far as the parent says so.

        Raises:
            NoDocument: with what to answer.
        """
        if client is not None and not self._clients.take(client, CLIENT_RATE, CLIENT_BURST, now()):
            text = f"more than {CLIENT_RATE:g} documents are asked for in a second by one client"
            raise self._refuse(429, text)
        if not self._bucket.take(RATE, BURST, now()):
            raise self._refuse(429, f"more than {RATE:g} documents are asked for in a second")
        user_data, key = bound_fields(public_key, origin)
        try:
            async with timeout(ANSWER_SECONDS):
                return await self._calls.call(lambda: self._nsm.attest(user_data, nonce, key))
        except TooManyWait as error:
            raise self._refuse(503, str(error)) from None
        except NsmError as error:
            # What is wrong here is for the log; it is nobody's business outside.
            self._refuse(503, str(error))
            raise NoDocument(503, "the security module gives no document") from error
        except TimeoutError:
            text = f"the security module did not answer in {ANSWER_SECONDS:g} s"
            raise self._refuse(503, text) from None

    def _refuse(self, status: int, text: str) -> NoDocument:
        self._refused += 1
        if now() - self._reported_at >= REPORT_SECONDS:
            self._log.warning(
                "attestation_refused", status=status, text=text, refused=self._refused
            )
            self._reported_at = now()
            self._refused = 0
        return NoDocument(status, text)
