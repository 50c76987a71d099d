from hypothesis import given
from hypothesis import strategies as st

from enclave_side.shim.names.expiring_cache import ExpiringCache


def test_a_value_lasts_until_its_time() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(2)
    cache.put("a", 1, 10.0)
    assert cache.get("a", 9.9) == 1
    assert cache.get("a", 10.0) is None
    assert len(cache) == 0


def test_a_new_value_replaces_the_old_one() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(2)
    cache.put("a", 1, 10.0)
    cache.put("a", 2, 20.0)
    assert cache.get("a", 15.0) == 2
    assert len(cache) == 1


def test_the_one_that_was_put_in_first_makes_room() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(2)
    for number, key in enumerate("aba"):
        cache.put(key, number, 10.0)
    cache.put("c", 3, 10.0)
    assert [cache.get(key, 0.0) for key in "abc"] == [2, None, 3]


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 100)), max_size=50))
def test_there_is_never_more_than_there_is_room_for(puts: list[tuple[int, float]]) -> None:
    cache: ExpiringCache[int, float] = ExpiringCache(4)
    for key, expires in puts:
        cache.put(key, expires, expires)
        assert len(cache) <= 4
        assert cache.get(key, -1.0) == expires
