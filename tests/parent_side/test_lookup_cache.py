"""The cache of lookups, on a clock that the tests set."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parent_side.lookup_cache import (
    PLACE_BYTES,
    Answer,
    Failure,
    LookupCache,
    Outcome,
    Question,
    Records,
    RecordType,
    lifetime_seconds,
)


def answer(ttl_seconds: int) -> Answer:
    return Answer((ip_address("192.0.2.1"),), ttl_seconds)


def places(count: int) -> Records:
    """An outcome that takes so many places."""
    return Records((count - 1) * (bytes(PLACE_BYTES),), 60)


A_TEST = Question("a.test")
NO_SUCH_NAME = Failure("no_such_name", "a.test: there is no such name")
LOOKUP_FAILED = Failure("lookup_failed", "a.test: no DNS server answered")


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        pytest.param(answer(60), 60, id="an answer lives for its TTL"),
        pytest.param(answer(86_400), 300, id="a long TTL is cut to five minutes"),
        pytest.param(answer(0), 0, id="TTL 0 is not kept"),
        pytest.param(answer(-1), 0, id="a TTL with its highest bit set counts as 0"),
        pytest.param(Records((b"\0",), 60), 60, id="records live for their TTL"),
        pytest.param(Records((b"\0",), 86_400), 300, id="and for five minutes at most"),
        pytest.param(Records((), 5), 5, id="that there are none is believed as long"),
        pytest.param(NO_SUCH_NAME, 5, id="an absent name is believed for 5 s"),
        pytest.param(LOOKUP_FAILED, 1, id="a failure is remembered for 1 s"),
    ],
)
def test_lifetime(outcome: Outcome, seconds: int) -> None:
    assert lifetime_seconds(outcome) == seconds
    cache = LookupCache()
    cache.put(16, A_TEST, outcome, now=100.0)
    assert (cache.get(16, A_TEST, now=99.999 + seconds) is not None) == bool(seconds)
    assert cache.get(16, A_TEST, now=100.0 + seconds) is None
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("outcome", "later"),
    [
        pytest.param(answer(60), answer(49), id="addresses"),
        pytest.param(Records((b"\0",), 60), Records((b"\0",), 49), id="records"),
        pytest.param(answer(86_400), answer(289), id="a TTL that was cut"),
    ],
)
def test_a_ttl_is_what_is_left_of_it(outcome: Outcome, later: Outcome) -> None:
    cache = LookupCache()
    cache.put(16, A_TEST, outcome, now=100.0)
    assert cache.get(16, A_TEST, now=110.5) == later


@pytest.mark.parametrize("outcome", [NO_SUCH_NAME, LOOKUP_FAILED])
def test_a_failure_stays_as_it_came(outcome: Failure) -> None:
    cache = LookupCache()
    cache.put(16, A_TEST, outcome, now=100.0)
    assert cache.get(16, A_TEST, now=100.5) == outcome


def test_enclaves_do_not_see_each_others_entries() -> None:
    cache = LookupCache()
    cache.put(16, A_TEST, answer(60), now=0.0)
    assert cache.get(17, A_TEST, now=0.0) is None


def test_types_of_one_name_are_apart() -> None:
    cache = LookupCache()
    kinds = (None, *RecordType)
    for number, kind in enumerate(kinds):
        cache.put(16, Question("a.test", kind), Records((bytes([number]),), 60), now=0.0)
    for number, kind in enumerate(kinds):
        known = cache.get(16, Question("a.test", kind), now=0.0)
        assert known == Records((bytes([number]),), 60)


def test_a_later_outcome_replaces_an_earlier_one() -> None:
    cache = LookupCache()
    cache.put(16, A_TEST, answer(60), now=0.0)
    cache.put(16, A_TEST, NO_SUCH_NAME, now=1.0)
    assert cache.get(16, A_TEST, now=1.0) == NO_SUCH_NAME
    cache.put(16, A_TEST, answer(0), now=2.0)
    assert cache.get(16, A_TEST, now=2.0) is None
    assert len(cache) == 0


def test_random_names_of_one_enclave_push_out_only_its_own_oldest() -> None:
    cache = LookupCache(capacity=10)
    wanted = [Question(f"wanted{number}.test") for number in range(3)]
    random = [Question(f"random{number}.test") for number in range(1000)]
    for question in wanted:
        cache.put(16, question, answer(60), now=0.0)
    for question in random:
        cache.put(17, question, answer(60), now=0.0)
    assert len(cache) == 10
    assert all(cache.get(16, question, now=0.0) for question in wanted)
    assert [question for question in random if cache.get(17, question, now=0.0)] == random[993:]


def test_a_full_cache_makes_room_for_an_enclave_that_is_new() -> None:
    cache = LookupCache(capacity=10)
    for number in range(10):
        cache.put(16, Question(f"name{number}.test"), answer(60), now=0.0)
    cache.put(17, A_TEST, answer(60), now=0.0)
    assert len(cache) == 10
    assert cache.get(17, A_TEST, now=0.0) is not None
    assert cache.get(16, Question("name0.test"), now=0.0) is None


def test_records_take_room_by_their_bytes() -> None:
    cache = LookupCache(capacity=10)
    names = [Question(f"name{number}.test", RecordType.TXT) for number in range(10)]
    cache.put(16, A_TEST, answer(60), now=0.0)
    for question in names:
        cache.put(17, question, places(4), now=0.0)
    assert len(cache) == 3
    assert cache.get(16, A_TEST, now=0.0) is not None
    assert [question for question in names if cache.get(17, question, now=0.0)] == names[8:]


def test_what_is_larger_than_all_the_room_is_not_kept() -> None:
    cache = LookupCache(capacity=10)
    cache.put(16, A_TEST, answer(60), now=0.0)
    cache.put(17, A_TEST, places(11), now=0.0)
    assert cache.get(17, A_TEST, now=0.0) is None
    assert cache.get(16, A_TEST, now=0.0) is not None


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 9),
            st.one_of(st.integers(0, 3).map(answer), st.integers(1, 4).map(places)),
            st.integers(0, 2),
        ),
        max_size=80,
    )
)
def test_whatever_happens_nothing_is_too_old_and_the_bound_holds(
    steps: list[tuple[int, int, Answer | Records, int]],
) -> None:
    cache, now = LookupCache(capacity=6), 0.0
    arrived: dict[tuple[int, Question], tuple[float, int]] = {}
    for enclave, name, outcome, pause_seconds in steps:
        now += pause_seconds
        question = Question(f"name{name}.test")
        known = cache.get(enclave, question, now)
        if known is None:
            cache.put(enclave, question, outcome, now)
            arrived[enclave, question] = now, outcome.ttl_seconds
        else:
            assert isinstance(known, Answer | Records)
            since, ttl_seconds = arrived[enclave, question]
            assert known.ttl_seconds == ttl_seconds - (now - since) > 0
        assert len(cache) <= 6
