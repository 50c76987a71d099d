"""The cache of lookups, on a clock that the tests set."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parent_side.lookup_cache import Answer, Failure, LookupCache, Outcome, lifetime_seconds


def answer(ttl_seconds: int) -> Answer:
    return Answer((ip_address("192.0.2.1"),), ttl_seconds)


NO_SUCH_NAME = Failure("no_such_name", "a.test: there is no such name")
LOOKUP_FAILED = Failure("lookup_failed", "a.test: no DNS server answered")


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        pytest.param(answer(60), 60, id="an answer lives for its TTL"),
        pytest.param(answer(86_400), 300, id="a long TTL is cut to five minutes"),
        pytest.param(answer(0), 0, id="TTL 0 is not kept"),
        pytest.param(answer(-1), 0, id="a TTL with its highest bit set counts as 0"),
        pytest.param(NO_SUCH_NAME, 5, id="an absent name is believed for 5 s"),
        pytest.param(LOOKUP_FAILED, 1, id="a failure is remembered for 1 s"),
    ],
)
def test_lifetime(outcome: Outcome, seconds: int) -> None:
    assert lifetime_seconds(outcome) == seconds
    cache = LookupCache()
    cache.put(16, "a.test", outcome, now=100.0)
    if seconds:
        assert cache.get(16, "a.test", now=99.999 + seconds) == outcome
    assert cache.get(16, "a.test", now=100.0 + seconds) is None
    assert len(cache) == 0


def test_enclaves_do_not_see_each_others_entries() -> None:
    cache = LookupCache()
    cache.put(16, "a.test", answer(60), now=0.0)
    assert cache.get(17, "a.test", now=0.0) is None


def test_a_later_outcome_replaces_an_earlier_one() -> None:
    cache = LookupCache()
    cache.put(16, "a.test", answer(60), now=0.0)
    cache.put(16, "a.test", NO_SUCH_NAME, now=1.0)
    assert cache.get(16, "a.test", now=1.0) == NO_SUCH_NAME
    cache.put(16, "a.test", answer(0), now=2.0)
    assert cache.get(16, "a.test", now=2.0) is None
    assert len(cache) == 0


def test_random_names_of_one_enclave_push_out_only_its_own_oldest() -> None:
    cache = LookupCache(capacity=10)
    for number in range(3):
        cache.put(16, f"wanted{number}.test", answer(60), now=0.0)
    for number in range(1000):
        cache.put(17, f"random{number}.test", answer(60), now=0.0)
    assert len(cache) == 10
    assert all(cache.get(16, f"wanted{number}.test", now=0.0) for number in range(3))
    kept = [n for n in range(1000) if cache.get(17, f"random{n}.test", now=0.0)]
    assert kept == list(range(993, 1000))


def test_a_full_cache_makes_room_for_an_enclave_that_is_new() -> None:
    cache = LookupCache(capacity=10)
    for number in range(10):
        cache.put(16, f"name{number}.test", answer(60), now=0.0)
    cache.put(17, "a.test", answer(60), now=0.0)
    assert len(cache) == 10
    assert cache.get(17, "a.test", now=0.0) is not None
    assert cache.get(16, "name0.test", now=0.0) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 3), st.integers(0, 2)),
        max_size=80,
    )
)
def test_whatever_happens_nothing_is_too_old_and_the_bound_holds(
    steps: list[tuple[int, int, int, int]],
) -> None:
    cache, now = LookupCache(capacity=6), 0.0
    arrived: dict[tuple[int, str], float] = {}
    for enclave, name, ttl_seconds, pause_seconds in steps:
        now += pause_seconds
        host = f"name{name}.test"
        known = cache.get(enclave, host, now)
        if known is None:
            cache.put(enclave, host, answer(ttl_seconds), now)
            arrived[enclave, host] = now
        else:
            assert isinstance(known, Answer)
            assert now - arrived[enclave, host] < known.ttl_seconds
        assert len(cache) <= 6
