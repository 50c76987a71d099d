"""Answers the questions for names that enclaves ask (RESOLVE): one answer and one line for each.

Policy comes first: the lists of the enclave have to allow the name on some port. Addresses are
those that the address guard lets a stream be dialled to; a rule with `dial` is an answer without a
lookup. Records of other types come as the DNS has them. Lookups take the enclave's own turns at
the DNS, those that its streams have too.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from parent_side.enclave import Enclave
from parent_side.lookup_cache import (
    ABSENT_SECONDS,
    LONGEST_ANSWER_SECONDS,
    LOOKUP_FAILED_SECONDS,
    Answer,
    Records,
    RecordType,
    lifetime_seconds,
)
from parent_side.resolver import LookupFailed, NoSuchName, Resolver
from vsockproxy import metrics
from vsockproxy.addresses import Host
from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.loop import Task, now, spawn
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy import Decision, Policy, Reason
from vsockproxy.session.messages import Resolve, Resolved

if TYPE_CHECKING:  # a worker without a proxy does without h11
    from parent_side.upstream_proxy import UpstreamProxy

__all__ = ("QUESTIONS_AT_ONCE", "NameAnswers")

QUESTIONS_AT_ONCE: Final = 1024
"""Lookups of one enclave that may be asked for at once, over all its links."""

_VERSIONS: Final = {1: 4, 28: 6}
"""The IP version of the addresses in records of type A and AAAA."""

_TYPE_NAMES: Final = {1: "A", 28: "AAAA", **{kind.value: kind.name for kind in RecordType}}
"""The types that are answered."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question that waits for its answer."""

    enclave: Enclave
    link: Link
    request_id: int
    name: str
    """In normal form where it has one."""
    type_name: str
    decision: Decision


class NameAnswers:
    """Serves the questions of all enclaves, with a task for each that needs a lookup.

    Args:
        resolver: looks names up.
        log: for the lines.
        upstream: the proxy that destinations are reached through; names that it looks up itself
            have an answer without addresses.
        at_once: lookups of one enclave.
    """

    def __init__(
        self,
        resolver: Resolver,
        log: Log,
        upstream: "UpstreamProxy | None" = None,
        *,
        at_once: int = QUESTIONS_AT_ONCE,
    ) -> None:
        self._at_once = at_once
        self.resolver = resolver
        self.upstream = upstream
        self._log = log
        self._tasks: dict[Link, set[Task[Resolved]]] = {}
        self._counts: dict[int, int] = {}
        """Lookups under way, by CID."""

    def serve(self, enclave: Enclave, link: Link, request_id: int, question: Resolve) -> None:
        """Serve one question; returns at once."""
        decision, host = enclave.policy.decide_name_text(question.name)
        kind = question.record_type
        asked = _Asked(
            enclave,
            link,
            request_id,
            host.text if host is not None else question.name,
            _TYPE_NAMES.get(kind, f"TYPE{kind}"),  # RFC 3597, section 5
            decision,
        )
        try:
            try:
                enclave.admission.admit_lookup(now())
            except Refused:
                self._log.activity.counters.add(metrics.LIMIT_REFUSALS, ("rate",))
                raise
            if not decision.allowed or host is None:
                raise Refused(decision.reason, decision.text)
            if not _needs_lookup(enclave.policy, decision, host, kind) or (
                kind in _VERSIONS
                and self.upstream is not None
                and self.upstream.way_out.looks_up(host)
            ):
                self._answer(asked, Resolved(ttl_seconds=LONGEST_ANSWER_SECONDS))
                return
            count = self._counts.get(enclave.cid, 0)
            if count >= self._at_once:
                self._log.activity.counters.add(metrics.LIMIT_REFUSALS, ("lookups",))
                raise Refused("limit", f"{host}: {count} names are being looked up")
        except Refused as refused:
            self._answer(asked, Resolved(refused.reason, refused.text, ttl_seconds=ABSENT_SECONDS))
            return
        self._counts[enclave.cid] = count + 1
        task = spawn(self._look_up(enclave, decision, host, kind), f"question for {host}")
        self._tasks.setdefault(link, set()).add(task)
        # Not in the task itself: one that is cancelled before its first step runs no `finally`.
        task.add_done_callback(partial(self._done, asked))

    def link_ended(self, link: Link) -> None:
        """Give up the lookups that were asked for on a link that is gone."""
        for task in list(self._tasks.get(link, ())):
            task.cancel()

    async def _look_up(
        self, enclave: Enclave, decision: Decision, host: Host, kind: int
    ) -> Resolved:
        found: Answer | Records
        try:
            if kind in _VERSIONS:
                # What streams to the name will use, and judged as for them: both versions.
                found = await self.resolver.look_up_addresses(host.text, enclave=enclave.cid)
                judged, told = enclave.policy.judge_name(decision, host, found.addresses)
                if not judged.allowed:
                    ttl_seconds = min(lifetime_seconds(found), ABSENT_SECONDS)
                    return Resolved(judged.reason, judged.text, ttl_seconds=ttl_seconds)
                records = tuple(each.packed for each in told if each.version == _VERSIONS[kind])
            else:
                found = await self.resolver.look_up_records(
                    host.text, RecordType(kind), enclave=enclave.cid
                )
                records = found.records
        except NoSuchName as error:
            return Resolved("no_such_name", error.text, ttl_seconds=ABSENT_SECONDS)
        except LookupFailed as error:
            return Resolved("lookup_failed", error.text, ttl_seconds=LOOKUP_FAILED_SECONDS)
        return Resolved(records=records, ttl_seconds=lifetime_seconds(found))

    def _done(self, asked: _Asked, task: Task[Resolved]) -> None:
        tasks = self._tasks[asked.link]
        tasks.remove(task)
        if not tasks:
            del self._tasks[asked.link]
        cid = asked.enclave.cid
        self._counts[cid] -= 1
        if not self._counts[cid]:
            del self._counts[cid]
        if task.cancelled():
            answer = Resolved("lookup_failed", "given up: the link ended before the answer came")
        elif task.exception() is not None:  # a fault of ours; whoever spawned it is told of it
            answer = Resolved("lookup_failed", "an internal fault of the parent")
        else:
            answer = task.result()
        self._answer(asked, answer)

    def _answer(self, asked: _Asked, answer: Resolved) -> None:
        """Answer, which does nothing where the link is gone, and write the line."""
        asked.link.answer_resolve(asked.request_id, answer)
        decision = asked.decision
        reason = answer.reason or decision.reason
        known_type = asked.type_name if asked.type_name in _TYPE_NAMES.values() else metrics.OTHER
        self._log.activity.counters.add(metrics.RESOLVES, (known_type, reason))
        self._log.write(
            "info" if reason == Reason.LISTED else "warning",
            "resolve",
            {
                "cid": asked.enclave.cid,
                "enclave": asked.enclave.name,
                "host": asked.name,
                "type": asked.type_name,
                "rule": decision.rule.source if decision.rule is not None else None,
                "records": len(answer.records),
                "allowed": not answer.reason,
                "reason": reason,
                "text": answer.text or (decision.text if decision.reported else None),
            },
        )


def _needs_lookup(policy: Policy, decision: Decision, host: Host, kind: int) -> bool:
    """Whether an allowed name has to be looked up; one that a rule dials elsewhere has not.

    Raises:
        Refused: with one of the reasons of design §10.
    """
    if kind not in _TYPE_NAMES:
        # Not no_such_name and not not_listed: those would speak of the name, with all its types.
        offered = ", ".join(_TYPE_NAMES.values())
        raise Refused("lookup_failed", f"{host}: type {kind} is not offered, only {offered}")
    if host.address is not None:
        raise Refused("no_such_name", f"{host} is an address, not a name")
    dialled = decision.rule.dial if decision.rule is not None else None
    if dialled is None:
        return True
    if dialled.host.address is not None:
        judged, _ = policy.judge(decision, host, dialled.port, (dialled.host.address,))
        if not judged.allowed:
            raise Refused(judged.reason, judged.text)
    return False
