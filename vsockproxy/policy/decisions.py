"""What policy says about one stream."""

from dataclasses import dataclass

from vsockproxy.addresses import Destination, Host
from vsockproxy.policy.reasons import Reason
from vsockproxy.policy.rules import Rule

__all__ = ("Decision",)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a stream may be, and why.

    Args:
        allowed: whether it may.
        reason: the fixed word for it.
        rule: the rule that decided; None if no rule covers host and port.
        text: one line for people; a refusal's says what to do. It is bounded, and free of control
            characters even where the host was not.
        reported: allowed only because the file says `mode: report`; `reason` is what enforcing
            would have refused it for.
    """

    allowed: bool
    reason: Reason
    rule: Rule | None
    text: str
    reported: bool = False

    def dialled(self, host: Host, port: int) -> Destination:
        """What an allowed stream for `host` and `port` is connected to: the rule may say `dial`."""
        if self.rule is not None and self.rule.dial is not None:
            return self.rule.dial
        return Destination(host, port)
