"""The audit lines: one for each decision, one for each close (design §10, "Logs").

What they say is counted as well, in the log's `activity`, which also knows the open streams.
"""

from collections.abc import Callable
from dataclasses import dataclass

from vsockproxy.activity import Totals
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.log import Log


@dataclass(slots=True, eq=False)
class StreamRecord:
    """What both lines say of one stream.

    Args:
        cid: of the enclave; None inside one, which does not know its own.
        enclave: the configured name of the enclave, if any.
        host: what was asked for, in normal form where it has one.
        port: what was asked for.
        way: how the program came in: names, http_proxy, socks5, forward, streams, session,
            ingress.
        opened_at: seconds on the loop's clock.
    """

    host: str
    port: int
    way: str
    opened_at: float
    cid: int | None = None
    enclave: str | None = None
    stream: int | None = None
    client: str | None = None
    """Of ingress: where the connection from outside comes from."""
    address: str | None = None
    via: str | None = None
    """The upstream proxy that the destination was reached through."""
    is_reached: bool = False
    """Whether the destination was connected to."""
    rule: str | None = None
    reason: str = ""
    decided_by: str | None = None
    is_open: bool = False
    """Whether an allowing decision was written, so that a close is to follow."""
    allowed_later: str = ""
    """The reason of an allowing decision that the first bytes may still overturn."""
    label: str = ""
    """The label `enclave` of its metrics."""
    totals: Callable[[], Totals] | None = None
    """How far it has come, from the time that something is relayed."""

    def allow_later(self, reason: str) -> None:
        """Allow what `confirm` or `close` will write, unless it is refused before."""
        self.allowed_later = reason

    def confirm(self, log: Log, text: str | None = None) -> None:
        """Write the decision that `allow_later` left open, if it did."""
        if self.allowed_later:
            self.decide(log, allowed=True, reason=self.allowed_later, text=text)

    def decide(self, log: Log, *, allowed: bool, reason: str, text: str | None = None) -> None:
        """Write the decision line; `text` says more: of a refusal, what to do about it."""
        self.reason = reason
        self.allowed_later = ""
        self.is_open = self.is_open or allowed
        log.activity.decided(self, allowed=allowed, reason=reason)
        if not allowed:
            log.activity.refused(self, reason, text, log.wall_clock())
        fields = self._common()
        fields["allowed"] = allowed
        fields["text"] = text
        log.write("info" if allowed and reason == "listed" else "warning", "decision", fields)

    def follow(self, end: StreamEnd, *, is_in_enclave: bool) -> None:
        """Count the bytes of a stream as the program sees them: out is what the enclave sends."""

        def totals() -> Totals:
            stalls = end.stream.send.stalls
            if is_in_enclave:
                return Totals(end.bytes_sent, end.bytes_received, stalls)
            return Totals(end.bytes_received, end.bytes_sent, stalls)

        self.totals = totals

    def close(self, log: Log, *, ended: str, now: float) -> None:
        """Write the close line, if the stream was open, with the bytes that `totals` counted."""
        self.confirm(log)
        if not self.is_open:
            return
        totals = self.totals() if self.totals is not None else Totals(0, 0)
        log.activity.closed(self, ended=ended, totals=totals, seconds=now - self.opened_at)
        fields = self._common()
        fields["bytes_out"] = totals.bytes_out
        fields["bytes_in"] = totals.bytes_in
        fields["duration"] = round(now - self.opened_at, 3)
        fields["ended"] = ended
        log.write("info", "close", fields)

    def _common(self) -> dict[str, object]:
        fields: dict[str, object] = {
            "cid": self.cid,
            "enclave": self.enclave,
            "stream": self.stream,
            "host": self.host,
            "port": self.port,
            "client": self.client,
            "address": self.address,
            "via": self.via,
            "rule": self.rule,
            "reason": self.reason,
            "way": self.way,
        }
        if self.decided_by is not None:
            fields["side"] = self.decided_by
        return fields
