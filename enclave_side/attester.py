"""Answers the challenge of a parent that demands attestation: a document for each link.

The module (NSM) may take up to 120 s, so it is asked in a thread. Each link asks anew: a document
is bound to the hellos of one connection, and so no secret has to travel between links or workers.
"""

import fcntl
import socket
import struct
from functools import partial
from typing import Final

from vsockproxy.attestation.nsm_errors import NsmError
from vsockproxy.dataplane.greeting import Greeted, show_evidence
from vsockproxy.dataplane.loop import in_thread, timeout
from vsockproxy.nsm_device import Nsm, has_nsm
from vsockproxy.session import SessionRefused
from vsockproxy.session.attesting import Evidence, session_user_data

__all__ = ("VSOCK_DEVICE", "Attester", "CidUnknown", "machine_cid", "own_cid")

VSOCK_DEVICE: Final = "/dev/vsock"

_GET_LOCAL_CID: Final = 0x7B9
"""IOCTL_VM_SOCKETS_GET_LOCAL_CID, _IO(7, 0xb9) of linux/vm_sockets.h; gives a u32."""

_CID: Final = struct.Struct("=I")
_LOOPBACK_CID: Final = 1
"""VMADDR_CID_LOCAL: who connects there has it, too."""


class CidUnknown(Exception):
    """The kernel does not say which CID this machine has."""


class Attester:
    """Gets documents from the module of this enclave.

    Args:
        nsm: where they come from.
    """

    def __init__(self, nsm: Nsm) -> None:
        self._nsm = nsm

    @property
    def can_attest(self) -> bool:
        """Whether there is a module; looked up each time, for it may come late."""
        return has_nsm(self._nsm.location)

    async def attest(self, sock: socket.socket, greeted: Greeted, result_seconds: float) -> bytes:
        """Do as a parent demands that has sent a challenge; what followed its result.

        Args:
            sock: the link.
            greeted: what is known of the link.
            result_seconds: the most that the parent's result may take.

        Raises:
            SessionRefused: the parent is not content, or there was no document to show it.
            PeerProtocolError: it broke the format.
            OSError: the connection ended or failed, or there was no result in time.
        """
        assert greeted.nonce is not None  # whoever calls has looked
        evidence = await self._evidence(sock, greeted.nonce)
        try:
            async with timeout(result_seconds):
                result, rest = await show_evidence(sock, evidence, greeted.rest)
        except TimeoutError:
            text = f"no result of the attestation for {result_seconds:g} s"
            raise ConnectionResetError(text) from None
        if result.reason:
            text = f"the peer refused the session: {result.reason}: {result.text}"
            raise SessionRefused(text, has_cost=True)
        return rest

    async def _evidence(self, sock: socket.socket, nonce: bytes) -> Evidence:
        try:
            user_data = session_user_data(own_cid(sock))
            ask = partial(self._nsm.attest, user_data=user_data, nonce=nonce)
            return Evidence(await in_thread(ask, "attestation"))
        except (CidUnknown, NsmError) as error:
            return Evidence(refusal=str(error))


def own_cid(link: socket.socket) -> int | None:
    """The CID that the other end of a link sees; None where the link is no vsock.

    A connected socket does not say: it was bound to any CID.

    Args:
        link: a connected socket.

    Raises:
        CidUnknown: the kernel does not say.
    """
    if link.family != getattr(socket, "AF_VSOCK", None):
        return None
    if link.getpeername()[0] == _LOOPBACK_CID:
        return _LOOPBACK_CID
    return machine_cid()


def machine_cid(device: str = VSOCK_DEVICE) -> int:
    """The CID that the hypervisor has given to this machine.

    Raises:
        CidUnknown: the kernel does not say.
    """
    answer = bytearray(_CID.size)
    try:
        with open(device, "rb", buffering=0) as opened:
            fcntl.ioctl(opened, _GET_LOCAL_CID, answer)
    except OSError as error:
        raise CidUnknown(f"{device} does not say this machine's CID: {error.strerror}") from error
    (cid,) = _CID.unpack(answer)
    return int(cid)
