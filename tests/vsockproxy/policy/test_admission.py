"""What one enclave may open: at once, and by the second, under a rule and in all."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.config.model import Rate
from vsockproxy.config.patterns import parse_pattern
from vsockproxy.errors import Refused
from vsockproxy.policy import Admission, Place, Rule
from vsockproxy.policy.admission import ATTESTATIONS_AT_ONCE, ATTESTATIONS_PER_SECOND
from vsockproxy.policy.token_bucket import TokenBucket


def rule(name: str = "a.test", *, line: int = 7, **limits: float) -> Rule:
    connections = limits.get("connections")
    return Rule(
        parse_pattern(name),
        ((443, 443),),
        f"parent.yaml:{line}",
        connections=None if connections is None else int(connections),
        rate=limits.get("rate"),
    )


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.reason == "limit"
    return caught.value.text


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), max_size=200),
)
def test_a_bucket_gives_no_more_than_its_burst_and_its_rate_over_any_time(
    rate: float, burst: int, pauses: list[float]
) -> None:
    bucket = TokenBucket()
    now = 0.0
    taken: list[float] = []
    for pause in pauses:
        now += pause
        if bucket.take(rate, burst, now):
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - start) * rate + 1e-6


@given(rate=st.floats(0.1, 1000), burst=st.integers(1, 50))
def test_a_bucket_that_was_left_alone_is_full(rate: float, burst: int) -> None:
    bucket = TokenBucket()
    assert [bucket.take(rate, burst, 0.0) for _ in range(burst + 1)] == [True] * burst + [False]
    assert not bucket.is_full(rate, 0.0)
    later = (burst + 1) / rate
    assert bucket.is_full(rate, later)
    assert [bucket.take(rate, burst, later) for _ in range(burst + 1)] == [True] * burst + [False]


def test_without_limits_nothing_is_refused_or_kept() -> None:
    admission = Admission()
    for _ in range(1000):
        admission.admit_stream(0)
        admission.admit_lookup(0)
        admission.enter(rule(), 0)
        admission.enter(None, 0)
    assert admission.is_idle(0)


def test_streams_and_lookups_have_a_rate_each() -> None:
    admission = Admission(Rate(streams=10, lookups=2, burst=3))
    for _ in range(3):
        admission.admit_stream(0)
        admission.admit_lookup(0)
    text = refusal(lambda: admission.admit_stream(0))
    assert text == "more than 10 streams a second (limits.rate)"
    text = refusal(lambda: admission.admit_lookup(0))
    assert text == "more than 2 lookups a second (limits.rate)"
    admission.admit_stream(0.1)
    refusal(lambda: admission.admit_lookup(0.1))
    admission.admit_lookup(0.5)


def test_lookups_are_as_many_as_streams_and_a_burst_is_one_second_unless_they_are_written() -> None:
    admission = Admission(Rate(streams=2))
    for admit in (admission.admit_stream, admission.admit_lookup):
        admit(0)
        admit(0)
        refusal(lambda admit=admit: admit(0))  # type: ignore[misc]  # mypy cannot infer defaults


def test_a_slow_rate_lets_one_through_at_a_time() -> None:
    admission = Admission(Rate(streams=0.5))
    admission.admit_stream(0)
    refusal(lambda: admission.admit_stream(1.9))
    admission.admit_stream(2)


def test_connections_under_a_rule_are_counted_until_they_leave() -> None:
    admission = Admission()
    limited = rule(connections=2)
    places = [admission.enter(limited, 0) for _ in range(2)]
    text = refusal(lambda: admission.enter(limited, 0))
    assert text == "2 connections are open under the rule at parent.yaml:7 (connections)"
    admission.enter(rule("b.test", connections=1), 0)
    places[0].leave()
    places[0].leave()  # it counts once
    admission.enter(limited, 0)
    refusal(lambda: admission.enter(limited, 0))


def test_a_rule_has_a_rate_of_its_own() -> None:
    admission = Admission()
    limited = rule(rate=2)
    for _ in range(2):
        admission.enter(limited, 0)
    text = refusal(lambda: admission.enter(limited, 0.4))
    assert text == "more than 2 a second under the rule at parent.yaml:7 (rate)"
    admission.enter(limited, 0.5)


def test_what_is_over_the_connections_of_a_rule_costs_nothing_of_its_rate() -> None:
    admission = Admission()
    limited = rule(connections=1, rate=2)
    place = admission.enter(limited, 0)
    refusal(lambda: admission.enter(limited, 0))
    place.leave()
    admission.enter(limited, 0).leave()
    assert "(rate)" in refusal(lambda: admission.enter(limited, 0))


def test_after_a_reload_that_moves_a_rule_its_connections_still_count() -> None:
    admission = Admission()
    before = [admission.enter(rule(connections=2), 0) for _ in range(2)]
    refusal(lambda: admission.enter(rule(line=90, connections=2), 0))
    admission.enter(rule(line=90, connections=3), 0)
    before[0].leave()
    refusal(lambda: admission.enter(rule(line=90, connections=2), 0))


def test_each_of_several_workers_has_its_part() -> None:
    admission = Admission(Rate(streams=4), share=2)
    limited = rule(connections=3)
    for _ in range(2):
        admission.admit_stream(0)
        admission.enter(limited, 0)
    refusal(lambda: admission.admit_stream(0))
    refusal(lambda: admission.enter(limited, 0))


def test_what_is_remembered_of_rules_is_bounded_by_those_in_use() -> None:
    admission = Admission()
    kept: list[Place] = [admission.enter(rule("kept.test", connections=1), 0)]
    for number in range(10_000):
        admission.enter(rule(f"n{number}.test", connections=1, rate=1000), number).leave()
    assert len(admission._usages) < 1000
    refusal(lambda: admission.enter(rule("kept.test", connections=1), 10_000))
    assert not admission.is_idle(1e9)
    kept[0].leave()
    assert admission.is_idle(1e9)


def test_attestations_have_a_limit_of_their_own() -> None:
    admission = Admission()
    for _ in range(int(ATTESTATIONS_AT_ONCE)):
        admission.admit_attestation(1000.0)
    assert not admission.is_idle(1000.0)
    text = refusal(lambda: admission.admit_attestation(1000.0))
    assert text == "more than 8 attestation documents a second"
    admission.admit_stream(1000.0)  # which is not theirs
    admission.admit_attestation(1000.0 + 1 / ATTESTATIONS_PER_SECOND)
    refusal(lambda: admission.admit_attestation(1000.0 + 1 / ATTESTATIONS_PER_SECOND))
    assert admission.is_idle(1000.0 + 2 * ATTESTATIONS_AT_ONCE / ATTESTATIONS_PER_SECOND)
