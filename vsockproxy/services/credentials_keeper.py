"""Keeps credentials fresh in the background, wherever they come from."""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from vsockproxy.control.logs import EventLog
from vsockproxy.credentials.documents import Credentials
from vsockproxy.credentials.endpoints import Holding
from vsockproxy.credentials.errors import CredentialsError, CredentialsRefused
from vsockproxy.credentials.rotation import next_fetch, refusal_delay, retry_delay
from vsockproxy.log_lines import Level
from vsockproxy.protocols.http_service import ServiceAnswer, ServiceRequest

__all__ = ("Answer", "CredentialsKeeper", "Fetch", "FetchRegion", "Trouble")

Answer = Callable[[ServiceRequest, Holding, float], ServiceAnswer]
"""Answers a request with what there is at a time."""

Fetch = Callable[[], Awaitable[Credentials]]
"""Fetches the latest credentials; CredentialsError if there are none."""

FetchRegion = Callable[[], Awaitable[str]]
"""Fetches the region's name; CredentialsError if it cannot be had."""

_T = TypeVar("_T")

FETCH_SECONDS: Final = 15.0
"""Time for one fetch."""

CLOCK_SECONDS: Final = 30.0
"""How often the wall clock is looked at."""

HURRY_SECONDS: Final = 1.0
"""Least time between a fetch that failed and one that somebody's need brings forward."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a fetch failed with."""

    text: str
    is_refusal: bool
    """Whether who was asked has said no, so that asking again soon is of no use."""


class CredentialsKeeper:
    """Fetches credentials, and the region once, before they are needed; `run` does the work.

    What is held stays good until it expires, whatever happens to later fetches.

    Args:
        fetch: fetches credentials.
        fetch_region: fetches the region; None where it is known.
        log: a line for each first success, change of the role, and beginning trouble.
        region: the region, where it is known.
        wall_clock: seconds since the epoch.
        chance: a random number from 0 up to 1.
    """

    def __init__(
        self,
        fetch: Fetch,
        fetch_region: FetchRegion | None,
        log: EventLog,
        *,
        region: str | None = None,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._fetch = fetch
        self._fetch_region = fetch_region
        self._log = log
        self._wall_clock = wall_clock
        self._chance = chance
        self._region = region
        self._credentials: Credentials | None = None
        self._fetched_at = 0.0
        self._troubles: dict[str, Trouble] = {}
        """What the last fetch of each thing failed with."""
        self._reported: dict[str, tuple[Level, str]] = {}
        self._hurry = trio.Event()
        self._rests_since = 0.0
        self.has_tried = trio.Event()
        """Set once credentials have been asked for."""
        self.changed = trio.Event()
        """Set when something has changed, and replaced by a fresh one then."""

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._wall_clock()

    @property
    def holding(self) -> Holding:
        """What there is at the moment."""
        trouble = self._troubles.get("credentials") or self._troubles.get("region")
        text = trouble.text if trouble is not None else ""
        return Holding(self._credentials, self._region, self._fetched_at, text)

    @property
    def region_trouble(self) -> Trouble | None:
        """Why there is no region, once that was tried."""
        return self._troubles.get("region")

    @property
    def is_refused(self) -> bool:
        """Whether the last fetch of credentials was refused."""
        trouble = self._troubles.get("credentials")
        return trouble is not None and trouble.is_refusal

    async def run(self) -> None:
        """Fetch until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_credentials)
            if self._fetch_region is not None and self._region is None:
                nursery.start_soon(self._find_region, self._fetch_region)

    async def answer(
        self, request: ServiceRequest, answer: Answer, seconds: float
    ) -> ServiceAnswer:
        """Answer a request; where something is still missing (503), wait `seconds` for it."""
        answered = answer(request, self.holding, self.now)
        with trio.move_on_after(seconds):
            while answered.status == 503:
                self.hurry()
                await self.changed.wait()
                answered = answer(request, self.holding, self.now)
        return answered

    async def _keep_credentials(self) -> None:
        failures = 0
        while True:
            try:
                self._take(await _within_time(self._fetch))
            except CredentialsError as error:
                failures += 1
                self._report("credentials", error)
                delay = self._delay_after(error, failures)
            else:
                failures = 0
                assert self._credentials is not None  # it was taken
                delay = next_fetch(self._credentials.expires_at, self.now, self._chance())
            self._tell()
            await self._rest(delay)

    async def _rest(self, seconds: float) -> None:
        """Wait, by the wall clock: what is held expires by it, suspended or set meanwhile."""
        self._rests_since = self.now
        self._hurry = trio.Event()
        until = self.now + seconds
        while (left := until - self.now) > 0 and not self._hurry.is_set():
            with trio.move_on_after(min(left, CLOCK_SECONDS)):
                await self._hurry.wait()

    def hurry(self) -> bool:
        """Fetch now, as somebody needs what is not there; at most once a second.

        Returns:
            Whether it will.
        """
        if self.now - self._rests_since < HURRY_SECONDS:
            return False
        self._hurry.set()
        return True

    def _delay_after(self, error: CredentialsError, failures: int) -> float:
        if isinstance(error, CredentialsRefused):
            return refusal_delay(self._chance())
        return retry_delay(failures, self._chance())

    async def _find_region(self, fetch_region: FetchRegion) -> None:
        failures = 0
        while self._region is None:
            try:
                self._region = await _within_time(fetch_region)
            except CredentialsError as error:
                failures += 1
                self._report("region", error)
                self._tell()
                await trio.sleep(self._delay_after(error, failures))
            else:
                self._troubles.pop("region", None)
                self._log.write("info", "region_known", {"region": self._region})
                self._tell()

    def _take(self, credentials: Credentials) -> None:
        if credentials.expires_at <= self.now:
            raise CredentialsError("credentials came that have expired: is the clock right?")
        held = self._credentials
        self._credentials = credentials
        self._fetched_at = self.now
        had_trouble = self._troubles.pop("credentials", None)
        self._reported.pop("credentials", None)
        fields: dict[str, object] = {
            "role": credentials.role,
            "access_key_id": credentials.access_key_id,
            "expires_in": round(credentials.expires_at - self.now),
        }
        if held is not None and held.role != credentials.role:
            self._log.write("warning", "role_changed", {"former_role": held.role, **fields})
        elif held is None or had_trouble is not None:
            self._log.write("info", "credentials_fetched", fields)
        elif held.access_key_id != credentials.access_key_id:
            self._log.write("debug", "credentials_renewed", fields)

    def _report(self, what: str, error: CredentialsError) -> None:
        """Keep the text of a failure, and log it unless that was the last thing to say."""
        text = str(error)
        self._troubles[what] = Trouble(text, isinstance(error, CredentialsRefused))
        held = self._credentials
        good_for = round(held.expires_at - self.now) if held is not None else None
        is_without = what == "credentials" and (good_for is None or good_for <= 0)
        level: Level = "error" if is_without else "warning"
        if self._reported.get(what) != (level, text):
            self._reported[what] = (level, text)
            fields: dict[str, object] = {"what": what, "text": text, "good_for": good_for}
            self._log.write(level, "fetch_failed", fields)

    def _tell(self) -> None:
        if "credentials" in self._troubles or self._credentials is not None:
            self.has_tried.set()
        changed, self.changed = self.changed, trio.Event()
        changed.set()


async def _within_time(fetch: Callable[[], Awaitable[_T]]) -> _T:
    with trio.move_on_after(FETCH_SECONDS):
        return await fetch()
    raise CredentialsError(f"no answer in {FETCH_SECONDS:g} s")
