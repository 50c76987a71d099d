"""How much of what policy allows one enclave may have: connections at once, and by the second.

The lists say what may be reached; this says how often. What is over a limit is refused with the
reason `limit` and the key that says so. On the parent all connections of an enclave are with one
worker, so what is counted here is all that the enclave has.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

from vsockproxy.config.model import Rate
from vsockproxy.errors import Refused
from vsockproxy.policy.reasons import Reason
from vsockproxy.policy.rules import Rule
from vsockproxy.policy.token_bucket import TokenBucket

__all__ = ("Admission", "Place")

ATTESTATIONS_PER_SECOND: Final = 8.0
ATTESTATIONS_AT_ONCE: Final = 64.0
"""Documents of one enclave that are verified, at some 7 ms each: all links of several workers at
once when it starts, and then no more than a twentieth of a processor."""

_LEAST_PRUNED: Final = 64


@dataclass(slots=True)
class _Usage:
    """What one enclave has under one rule."""

    open: int = 0
    bucket: TokenBucket = field(default_factory=TokenBucket)
    rate: float = 1.0
    """The bucket's rate when it was last asked."""

    def is_idle(self, now: float) -> bool:
        return not self.open and self.bucket.is_full(self.rate, now)


class Place:
    """One connection that counts under a rule until it leaves."""

    __slots__ = ("_usage",)

    def __init__(self, usage: _Usage | None = None) -> None:
        self._usage = usage

    def leave(self) -> None:
        """The connection is gone; nothing happens when it has left already."""
        if self._usage is not None:
            self._usage.open -= 1
            self._usage = None


class Admission:
    """Counts what one enclave opens, and refuses what is over a limit.

    Counts outlive a reload: a rule is known by its pattern and its ports, not by its line.

    Args:
        rate: how fast streams and questions may come; None for any.
        share: of how many workers this is one; each has its part of what is allowed.
    """

    __slots__ = (
        "_attestations",
        "_lookups",
        "_prune_at",
        "_share",
        "_streams",
        "_usages",
        "rate",
    )

    def __init__(self, rate: Rate | None = None, *, share: int = 1) -> None:
        self.rate = rate
        self._share = share
        self._streams = TokenBucket()
        self._lookups = TokenBucket()
        self._attestations = TokenBucket()
        self._usages: dict[Hashable, _Usage] = {}
        self._prune_at = _LEAST_PRUNED

    def is_idle(self, now: float) -> bool:
        """Whether nothing is open and every token has come back: a new one is as good."""
        if self.rate is not None and not (
            self._streams.is_full(self.rate.streams / self._share, now)
            and self._lookups.is_full(_lookups(self.rate) / self._share, now)
        ):
            return False
        if not self._attestations.is_full(ATTESTATIONS_PER_SECOND, now):
            return False
        return all(usage.is_idle(now) for usage in self._usages.values())

    def admit_stream(self, now: float) -> None:
        """A stream, or a connection to a raw port, is being opened.

        Raises:
            Refused: with `limit`, when it is one too many for `limits.rate`.
        """
        if self.rate is not None:
            self._take(self._streams, self.rate, self.rate.streams, "streams", now)

    def admit_lookup(self, now: float) -> None:
        """A name is being asked for.

        Raises:
            Refused: with `limit`, when it is one too many for `limits.rate`.
        """
        if self.rate is not None:
            self._take(self._lookups, self.rate, _lookups(self.rate), "lookups", now)

    def admit_attestation(self, now: float) -> None:
        """A document is about to be asked for, and verified.

        Raises:
            Refused: with `limit`, when it is one too many.
        """
        rate, burst = ATTESTATIONS_PER_SECOND, ATTESTATIONS_AT_ONCE
        if not self._attestations.take(rate, burst, now):
            text = f"more than {rate:g} attestation documents a second"
            raise Refused(Reason.LIMIT, text)

    def enter(self, rule: Rule | None, now: float) -> Place:
        """A connection under `rule` is being opened; it counts until its place is left.

        Raises:
            Refused: with `limit`, when it is one too many for the rule.
        """
        if rule is None or (rule.connections is None and rule.rate is None):
            return Place()
        usage = self._usage(rule, now)
        if rule.connections is not None:
            most = -(-rule.connections // self._share)
            if usage.open >= most:
                text = f"{_connections(most)} open under the rule at {rule.source} (connections)"
                raise Refused(Reason.LIMIT, text)
        if rule.rate is not None:
            usage.rate = rate = rule.rate / self._share
            if not usage.bucket.take(rate, max(1.0, rate), now):
                text = f"more than {rule.rate:g} a second under the rule at {rule.source}"
                raise Refused(Reason.LIMIT, f"{text} (rate)")
        usage.open += 1
        return Place(usage)

    def _take(self, bucket: TokenBucket, limit: Rate, rate: float, what: str, now: float) -> None:
        burst = max(1.0, (limit.burst or rate) / self._share)
        if not bucket.take(rate / self._share, burst, now):
            text = f"more than {rate:g} {what} a second (limits.rate)"
            raise Refused(Reason.LIMIT, text)

    def _usage(self, rule: Rule, now: float) -> _Usage:
        key = (rule.pattern, rule.ports)
        usage = self._usages.get(key)
        if usage is None:
            if len(self._usages) >= self._prune_at:
                # Rules of files that were in force before; those of this one come back by use.
                self._usages = {
                    each: kept for each, kept in self._usages.items() if not kept.is_idle(now)
                }
                self._prune_at = max(_LEAST_PRUNED, 2 * len(self._usages))
            usage = self._usages[key] = _Usage()
        return usage


def _lookups(rate: Rate) -> float:
    return rate.streams if rate.lookups is None else rate.lookups


def _connections(number: int) -> str:
    return "1 connection is" if number == 1 else f"{number} connections are"
