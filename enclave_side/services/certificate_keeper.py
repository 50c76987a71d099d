"""Keeps one service of ingress in possession of a certificate that holds."""

import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import trio

from enclave_side.services.certificate_sources import Source
from vsockproxy.certificates.errors import CertificateError
from vsockproxy.certificates.served import ServedCertificate
from vsockproxy.control.logs import EventLog

__all__ = ("CertificateKeeper",)

CLOCK_SECONDS: Final = 900.0
"""How often the wall clock is looked at, by which certificates end: it may be set meanwhile."""


class CertificateKeeper:
    """Obtains a certificate, hands it over, and does so again before it ends.

    Args:
        service: whose it is.
        source: where it comes from.
        hand_over: takes it, whoever serves with it.
        log: a line for each certificate, and for each attempt that failed.
        wall_clock: seconds since the epoch.
        chance: a random number from 0 up to 1.
    """

    def __init__(
        self,
        service: str,
        source: Source,
        hand_over: Callable[[ServedCertificate], Awaitable[None]],
        log: EventLog,
        *,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._service = service
        self._source = source
        self._hand_over = hand_over
        self._log = log
        self._wall_clock = wall_clock
        self._chance = chance

    async def run(self, held: ServedCertificate | None = None) -> None:
        """Keep it until cancelled.

        Args:
            held: what is presented already, from a process before this one; it stays.
        """
        current = held
        failures = 0
        while True:
            due_at = None if current is None else self._source.due_at(current)
            if current is not None and (due_at is None or self._now < due_at):
                await self._rest_until(due_at)
                continue
            try:
                current = await self._source.obtain(current, self._now)
            except CertificateError as error:
                failures += 1
                seconds = self._source.seconds_to_retry(error, failures, self._chance())
                self._report_failure(error, current, seconds)
                await trio.sleep(seconds)
                continue
            failures = 0
            await self._hand_over(current)
            self._report(current)

    @property
    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_clock(), UTC)

    async def _rest_until(self, due_at: datetime | None) -> None:
        if due_at is None:
            await trio.sleep_forever()
        else:
            await trio.sleep(min((due_at - self._now).total_seconds(), CLOCK_SECONDS))

    def _report(self, current: ServedCertificate) -> None:
        has_ended = current.not_after <= self._now
        fields: dict[str, object] = {
            "service": self._service,
            "key": self._source.origin,
            "public_key_sha256": hashlib.sha256(current.public_key).hexdigest(),
            "not_after": current.not_after.isoformat(),
            "text": "it has ended: put another one into the image" if has_ended else None,
        }
        self._log.write("error" if has_ended else "info", "certificate_ready", fields)

    def _report_failure(
        self, error: CertificateError, current: ServedCertificate | None, retry_after: float
    ) -> None:
        fields: dict[str, object] = {
            "service": self._service,
            "text": str(error),
            "retry_after": round(retry_after, 1),
        }
        if current is not None:
            fields["not_after"] = current.not_after.isoformat()
        self._log.write("error" if current is None else "warning", "certificate_failed", fields)
