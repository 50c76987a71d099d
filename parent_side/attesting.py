"""Has an enclave attest itself for one link: its evidence is read, judged and answered."""

import socket
from collections.abc import Callable
from functools import partial

from parent_side.trust import Attested, Trust, utc_now
from vsockproxy.dataplane.greeting import read_evidence
from vsockproxy.dataplane.loop import Semaphore, in_thread, timeout
from vsockproxy.dataplane.sockets import send_all
from vsockproxy.errors import Refused
from vsockproxy.metrics import ATTESTATIONS, Counters
from vsockproxy.session import SessionRefused
from vsockproxy.session.attesting import ATTESTATION_REQUIRED, Result

__all__ = ("ATTESTATION_REFUSED", "NO_ENTRY", "Attesting")

ATTESTATION_REFUSED = "attestation_refused"
"""The reason of a result where a document was shown; its text begins with the document's fault."""

NO_ENTRY = "pcr_mismatch"
"""The fault of a document that is genuine, with measurements that no entry has."""

_VERIFIED = "verified"
_MOST_SHOWN_PCR = 48


class Attesting:
    """Judges the evidence of all enclaves of a worker, one at a time, in a thread.

    Args:
        counters: get the results.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._turn = Semaphore(1)

    async def judge(
        self,
        sock: socket.socket,
        cid: int,
        nonce: bytes,
        trust: Trust,
        admit: Callable[[Attested | None], bool],
        *,
        seconds: float,
        received: bytes = b"",
    ) -> tuple[Attested | None, bytes]:
        """Read the evidence for a link, and give the result.

        Args:
            sock: the link, whose hellos were exchanged.
            cid: the other end's.
            nonce: of these hellos.
            trust: what makes a document one that is believed.
            admit: whether an enclave may have a session by what it has attested, if anything.
            seconds: the most that the evidence may take, and that the result may.
            received: what followed the enclave's hello.

        Returns:
            What was attested, None where the enclave may do without; and what followed it.

        Raises:
            SessionRefused: it may have no session, and has been told so.
            PeerProtocolError: it broke the format.
            OSError: the connection ended or failed.
        """
        try:
            async with timeout(seconds):
                evidence, rest = await read_evidence(sock, received)
        except TimeoutError:
            refused = Refused(ATTESTATION_REQUIRED, f"no document came within {seconds:g} s")
            raise await self._refuse(sock, refused, ATTESTATION_REQUIRED, seconds) from None
        attested: Attested | None = None
        try:
            if evidence.document is not None:
                # A link that is no vsock has no CID but by its listener, which its end cannot know.
                bound_cid = cid if sock.family == getattr(socket, "AF_VSOCK", None) else None
                work = partial(trust.verify, evidence.document, nonce, bound_cid, utc_now())
                async with self._turn:
                    attested = await in_thread(work, "attestation")
        except Refused as fault:
            refused = Refused(ATTESTATION_REFUSED, str(fault))
            raise await self._refuse(sock, refused, fault.reason, seconds) from None
        if not admit(attested):
            if attested is None:
                text = f"the enclave has no document: {evidence.refusal}"
                refused = Refused(ATTESTATION_REQUIRED, text)
                raise await self._refuse(sock, refused, ATTESTATION_REQUIRED, seconds)
            refused = Refused(ATTESTATION_REFUSED, f"{NO_ENTRY}: {_no_entry(cid, attested)}")
            raise await self._refuse(sock, refused, NO_ENTRY, seconds)
        await _tell(sock, Result(), seconds)
        if attested is not None:
            self._counters.add(ATTESTATIONS, (_VERIFIED,))
        return attested, rest

    def refused_unasked(self) -> None:
        """An enclave was refused because it cannot attest."""
        self._counters.add(ATTESTATIONS, (ATTESTATION_REQUIRED,))

    async def _refuse(
        self, sock: socket.socket, refused: Refused, result: str, seconds: float
    ) -> SessionRefused:
        self._counters.add(ATTESTATIONS, (self._counters.known_reason(result),))
        await _tell(sock, Result(refused.reason, refused.text), seconds)
        return SessionRefused(refused.text, reason=refused.reason)


async def _tell(sock: socket.socket, result: Result, seconds: float) -> None:
    """Send a result.

    Raises:
        OSError: the connection failed, or its other end does not take it.
    """
    try:
        async with timeout(seconds):
            await send_all(sock, result.encode())
    except TimeoutError:
        raise ConnectionResetError(f"the result was not taken for {seconds:g} s") from None


def _no_entry(cid: int, attested: Attested) -> str:
    first = attested.pcrs.get(0, b"")[:_MOST_SHOWN_PCR].hex()
    return f"no entry of enclaves is for CID {cid} with these measurements: PCR0 is {first}"
