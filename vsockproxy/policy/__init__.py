"""Policy: which streams may be, and where they may lead. Pure; the parent and the enclave use it.

decision = policy.decide(host, port)                     # deny wins; no rule means no
destination = decision.dialled(host, port)               # the rule may say `dial`
decision, addresses = policy.judge(decision, host, port, answers)    # dial only `addresses`

decision = policy.decide_name(host)                      # the same two steps without a port
decision, addresses = policy.judge_name(decision, host, answers)
"""

from vsockproxy.policy.admission import Admission, Place
from vsockproxy.policy.allowlist import Policy
from vsockproxy.policy.decisions import Decision
from vsockproxy.policy.explain import Explanation, LookUp, Party, Side, explain
from vsockproxy.policy.lists import Lists, may_connect
from vsockproxy.policy.reasons import Reason
from vsockproxy.policy.rules import Rule
from vsockproxy.policy.way_out import WayOut

__all__ = (
    "Admission",
    "Decision",
    "Explanation",
    "Lists",
    "LookUp",
    "Party",
    "Place",
    "Policy",
    "Reason",
    "Rule",
    "Side",
    "WayOut",
    "explain",
    "may_connect",
)
