import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.control.clock_decision import (
    MOST_ROUND_TRIP_NS,
    MOST_SLEW_NS,
    TOLERANCE_NS,
    Keep,
    Refuse,
    Sample,
    Slew,
    Step,
    choose_sample,
    decide,
)

SECOND = 1_000_000_000
MAX_STEP = 60 * SECOND

DECISIONS: dict[str, tuple[Sample, bool, Keep | Step | Slew | Refuse]] = {
    "right": (Sample(0, 1000), True, Keep()),
    "within what is left alone": (Sample(-TOLERANCE_NS, 1000), True, Keep()),
    "within what the answer can tell": (Sample(SECOND // 10, SECOND // 4), True, Keep()),
    "behind, at the start": (Sample(5 * SECOND, 1000), True, Step(5 * SECOND)),
    "behind by as much as it may be": (Sample(MAX_STEP, 1000), True, Step(MAX_STEP)),
    "behind, later": (Sample(5 * SECOND, 1000), False, Slew(5 * SECOND)),
    "ahead, at the start": (Sample(-5 * SECOND, 1000), True, Slew(-5 * SECOND)),
    "ahead, later": (Sample(-5 * SECOND, 1000), False, Slew(-5 * SECOND)),
    "far behind, at the start": (
        Sample(MAX_STEP + 1, 1000),
        True,
        Refuse("our clock is 60.000 s behind, more than max_step"),
    ),
    "far behind, later": (
        Sample(30 * SECOND, 1000),
        False,
        Refuse("our clock is 30.000 s behind, and is put forward at first only"),
    ),
    "far ahead": (
        Sample(-30 * SECOND, 1000),
        True,
        Refuse("our clock is 30.000 s ahead, and never goes backwards"),
    ),
    "an answer that took long": (
        Sample(5 * SECOND, MOST_ROUND_TRIP_NS + 1),
        True,
        Refuse("the answer took 0.500 s"),
    ),
}


@pytest.mark.parametrize(("sample", "is_first", "decision"), DECISIONS.values(), ids=DECISIONS)
def test_decision(sample: Sample, is_first: bool, decision: Keep | Step | Slew | Refuse) -> None:
    assert decide(sample, max_step_ns=MAX_STEP, is_first=is_first) == decision


SAMPLES = st.builds(Sample, st.integers(-(2**63), 2**63), st.integers(0, 2 * SECOND))


@given(SAMPLES, st.integers(1, 86_400 * SECOND), st.booleans())
def test_a_clock_never_goes_backwards_nor_beyond_the_bounds(
    sample: Sample, max_step_ns: int, is_first: bool
) -> None:
    match decide(sample, max_step_ns=max_step_ns, is_first=is_first):
        case Step(forward_ns):
            assert is_first
            assert 0 < forward_ns <= max_step_ns
        case Slew(offset_ns):
            assert 0 < abs(offset_ns) <= MOST_SLEW_NS


NANOSECONDS = st.integers(0, 10 * SECOND)


@given(
    st.lists(st.tuples(NANOSECONDS, NANOSECONDS), min_size=1, max_size=20),
    st.integers(-MAX_STEP, MAX_STEP),
    st.integers(0, 2**62),
)
def test_the_chosen_sample_is_right_within_half_its_round_trip(
    delays: list[tuple[int, int]], offset_ns: int, start_ns: int
) -> None:
    samples = []
    ours_ns = start_ns
    for there_ns, back_ns in delays:
        theirs_ns = ours_ns + there_ns + offset_ns
        ours_ns += there_ns + back_ns
        samples.append(Sample.of(theirs_ns, ours_ns, there_ns + back_ns))
    chosen = choose_sample(samples)
    assert chosen.round_trip_ns == min(map(sum, delays))
    assert abs(chosen.offset_ns - offset_ns) <= chosen.round_trip_ns / 2 + 1
