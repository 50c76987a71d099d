"""Which enclave gets the next stream."""

from parent_side.ingress.balance import MOST_REST_SECONDS, Balance

NOW = 1000.0


def balance(**offers: tuple[str, ...]) -> Balance:
    """Enclaves by CID, `c16=("web",)`, all of one worker."""
    made = Balance()
    for name, services in offers.items():
        made.put(int(name[1:]), 0, services)
    return made


def open_streams(made: Balance, count: int, service: str = "web") -> list[int | None]:
    chosen = []
    for _ in range(count):
        cid = made.choose(service, NOW)
        if cid is not None:
            made.opening(cid)
        chosen.append(cid)
    return chosen


def test_nobody_offers_it() -> None:
    assert balance().choose("web", NOW) is None
    assert balance(c16=("mail",)).choose("web", NOW) is None


def test_only_those_that_offer_it() -> None:
    made = balance(c16=("mail",), c17=("web", "mail"))
    assert open_streams(made, 3) == [17, 17, 17]


def test_the_fewest_streams() -> None:
    made = balance(c16=("web",), c17=("web",), c18=("web",))
    made.put(16, 0, ("web",), streams=5)
    made.put(17, 0, ("web",), streams=3)
    made.put(18, 0, ("web",), streams=4)
    assert open_streams(made, 4) == [17, 18, 17, 16]


def test_equals_take_turns() -> None:
    made = balance(c16=("web",), c17=("web",), c18=("web",))
    chosen = [made.choose("web", NOW) for _ in range(6)]
    assert sorted(chosen[:3], key=str) == [16, 17, 18]
    assert chosen[3:] == chosen[:3]


def test_a_stream_that_ends_is_counted_no_more() -> None:
    made = balance(c16=("web",), c17=("web",))
    made.put(16, 0, ("web",), streams=2)
    made.put(17, 0, ("web",), streams=1)
    made.closed(16)
    made.closed(16)
    made.closed(16)  # one that was opened in another life
    assert made[16].streams == 0
    assert made.choose("web", NOW) == 16


def test_only_the_wanted_and_not_those_that_were_tried() -> None:
    made = balance(c16=("web",), c17=("web",), c18=("web",))
    assert made.choose("web", NOW, cids={18}) == 18
    assert made.choose("web", NOW, tried={16, 18}) == 17
    assert made.choose("web", NOW, cids={18}, tried={18}) is None


def test_a_service_that_fails_is_put_aside_for_longer_each_time() -> None:
    made = balance(c16=("web", "mail"), c17=("web",))
    made.put(17, 0, ("web",), streams=100)
    now, rests = NOW, []
    for _ in range(7):
        rest = made.failed(16, "web", now)
        rests.append(rest)
        assert made.choose("web", now) == 17
        assert made.choose("mail", now) == 16, "the other service is not put aside"
        now += rest
        assert made.choose("web", now) == 16
    assert rests == [1, 2, 4, 8, 16, 30, 30]
    assert rests[-1] == MOST_REST_SECONDS


def test_failures_that_were_on_their_way_say_nothing_new() -> None:
    made = balance(c16=("web",))
    assert made.failed(16, "web", NOW) == 1.0
    assert made.failed(16, "web", NOW + 0.5) == 0.0
    assert made.failed(16, "web", NOW + 1.0) == 2.0


def test_what_was_put_aside_is_better_than_nothing() -> None:
    made = balance(c16=("web",))
    made.failed(16, "web", NOW)
    assert made.choose("web", NOW) == 16


def test_a_success_ends_it() -> None:
    made = balance(c16=("web",), c17=("web",))
    made.failed(16, "web", NOW)
    assert made.succeeded(16, "web")
    assert not made.succeeded(16, "web"), "it is told once"
    assert made[16].rests(NOW) == {}
    assert made.failed(16, "web", NOW) == 1.0


def test_an_enclave_that_is_gone() -> None:
    made = balance(c16=("web",), c17=("web",))
    made.remove(16)
    made.remove(16)
    made.opening(16)
    made.closed(16)
    assert not made.succeeded(16, "web")
    assert made.failed(16, "web", NOW) == 0.0
    assert 16 not in made
    assert open_streams(made, 2) == [17, 17]


def test_what_another_worker_says_of_its_enclaves() -> None:
    made = balance(c16=("web",))
    made.put(17, 1, ("web",), streams=0, rests={"web": NOW + 5})
    assert made.choose("web", NOW) == 16
    assert made[17].rests(NOW) == {"web": NOW + 5}
    made.put(17, 1, ("web",), streams=7, rests={})
    assert made[17].rests(NOW) == {}
    assert made[17].streams == 7
    assert made.choose("web", NOW) == 16


def test_an_enclave_that_another_worker_has_now() -> None:
    made = balance(c16=("web",))
    made.failed(16, "web", NOW)
    made.opening(16)
    made.put(16, 1, ("web",))
    assert (made[16].worker, made[16].streams, made[16].rests(NOW)) == (1, 0, {})


def test_a_service_that_is_offered_no_more() -> None:
    made = balance(c16=("web", "mail"))
    made.failed(16, "web", NOW)
    made.put(16, 0, ("mail",))
    assert made.choose("web", NOW) is None
    made.put(16, 0, ("mail", "web"))
    assert made[16].rests(NOW) == {}
