"""Attestation documents for calls to KMS: each is made after the call has come in.

The Nitro Secure Module serves one caller after the other. So calls that come in while a document is
being made wait for the next one together: it is younger than each of them, and the module's pace is
no limit to theirs.
"""

from collections.abc import Callable
from typing import Final

import trio

from vsockproxy.attestation.kms_errors import AttestationFailed
from vsockproxy.errors import VsockproxyError

__all__ = ("Attest", "FreshDocuments")

Attest = Callable[[], bytes]
"""Asks the module for a document; blocks. VsockproxyError or OSError if there is none."""

ATTEST_SECONDS: Final = 15.0
"""The module takes milliseconds; its driver gives up after 120 s."""

THREADS: Final = 2
"""One that asks, and one in case the other hangs in the driver."""


class _Batch:
    """Calls that wait for one document."""

    def __init__(self) -> None:
        self.is_over = trio.Event()
        self.document: bytes | None = None
        self.error: AttestationFailed | None = None


class FreshDocuments:
    """Gives documents.

    Args:
        attest: makes one.
    """

    def __init__(self, attest: Attest) -> None:
        self._attest = attest
        self._threads = trio.CapacityLimiter(THREADS)
        self._module = trio.Lock()
        self._next: _Batch | None = None
        self.made = 0
        """Documents that were made."""

    async def fresh(self) -> bytes:
        """A document that was made after this was called.

        Raises:
            AttestationFailed: the module gives none.
        """
        while True:
            batch = self._next
            if batch is None:
                batch = self._next = _Batch()
                await self._make(batch)
            else:
                await batch.is_over.wait()
            if batch.error is not None:
                raise AttestationFailed(batch.error.reason, batch.error.text)
            if batch.document is not None:
                return batch.document
            # Whoever was to make it was cancelled.

    async def _make(self, batch: _Batch) -> None:
        try:
            async with self._module:
                self._next = None  # who comes now gets the next one
                with trio.fail_after(ATTEST_SECONDS):
                    batch.document = await trio.to_thread.run_sync(
                        self._attest, abandon_on_cancel=True, limiter=self._threads
                    )
                self.made += 1
        except trio.TooSlowError:
            text = f"the Nitro Secure Module gave no document in {ATTEST_SECONDS:g} s"
            batch.error = AttestationFailed("nsm_timeout", text)
        except (VsockproxyError, OSError) as error:
            text = f"the Nitro Secure Module gave no document: {error}"
            batch.error = AttestationFailed("nsm", text)
        finally:
            if self._next is batch:
                self._next = None
            batch.is_over.set()
