"""The lines about lookups: so few that a flood of lookups is no flood of lines.

One name is told of once in ten seconds, for each reason and side: a program asks for A and AAAA,
and asks again. All names together have ten lines a second and fifty at once; what is beyond is
counted, and the next line that is written says how many were left out.
"""

from typing import Final

from enclave_side.shim.names.expiring_cache import ExpiringCache
from vsockproxy.log import Log

__all__ = ("LookupLog",)

WAY: Final = "names"

SECONDS_BETWEEN_LIKES: Final = 10.0
LINES_PER_SECOND: Final = 10.0
LINES_AT_ONCE: Final = 50.0
MOST_REMEMBERED: Final = 1024


class LookupLog:
    """Writes decisions about names, which have no port and no stream, and other news of lookups.

    Args:
        log: the worker's.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._told: ExpiringCache[tuple[str | None, ...], bool] = ExpiringCache(MOST_REMEMBERED)
        self._lines_left = LINES_AT_ONCE
        self._counted_at = 0.0
        self.left_out = 0
        """Lines that were not written and that no line has told of yet."""

    def decision(
        self,
        name: str,
        reason: str,
        now: float,
        *,
        allowed: bool = False,
        rule: str | None = None,
        text: str = "",
        side: str | None = None,
    ) -> None:
        """Write a decision line for a name.

        Args:
            name: in normal form where it has one.
            reason: one of the reasons of a decision.
            now: seconds.
            allowed: true where `mode: report` lets a name pass.
            rule: where the rule stands that decided.
            text: what to do about it.
            side: who decided, if it was not this side.
        """
        if self._may_write((name, reason, side), now):
            fields: dict[str, object] = {
                "host": name, "rule": rule, "reason": reason, "way": WAY, "allowed": allowed,
                "text": text or None,
            }  # fmt: skip  # in the order of a stream's decision line
            if side is not None:
                fields["side"] = side
            self._log.write("warning", "decision", fields)

    def warning(self, event: str, text: str, now: float) -> None:
        """Write a line about something else, with the same bounds."""
        if self._may_write((event, text), now):
            self._log.warning(event, way=WAY, text=text)

    def _may_write(self, what: tuple[str | None, ...], now: float) -> bool:
        if self._told.get(what, now):
            return False
        earned = (now - self._counted_at) * LINES_PER_SECOND
        self._lines_left = min(LINES_AT_ONCE, self._lines_left + earned)
        self._counted_at = now
        if self._lines_left < 1:
            self.left_out += 1
            return False
        self._lines_left -= 1
        self._told.put(what, True, now + SECONDS_BETWEEN_LIKES)
        if self.left_out:
            self._log.warning("lookups_not_logged", way=WAY, lines=self.left_out)
            self.left_out = 0
        return True
