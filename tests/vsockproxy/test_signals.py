import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.temporary_signals import unchanged_signal_mask
from vsockproxy.signals import ENDING, PASSED_ON, Received, SignalDescriptor, is_for_whole_group

SI_USER = 0
SI_KERNEL = 0x80


@pytest.fixture
def signals() -> Iterator[SignalDescriptor]:
    with unchanged_signal_mask(), SignalDescriptor(PASSED_ON) as made:
        yield made


def test_nothing_has_arrived(signals: SignalDescriptor) -> None:
    assert signals.read() == []


@pytest.mark.parametrize("number", sorted(PASSED_ON))
def test_what_a_program_sends_is_for_us_alone(
    number: signal.Signals, signals: SignalDescriptor
) -> None:
    signal.raise_signal(number)
    assert signals.read() == [Received(number, for_whole_group=False)]
    assert signals.read() == []


def test_several_at_once(signals: SignalDescriptor) -> None:
    for number in PASSED_ON:
        signal.raise_signal(number)
    assert {each.number for each in signals.read()} == PASSED_ON


@pytest.mark.parametrize(
    ("number", "code", "expected"),
    [
        pytest.param(signal.SIGINT, SI_KERNEL, True, id="Ctrl-C"),
        pytest.param(signal.SIGQUIT, SI_KERNEL, True, id="Ctrl-backslash"),
        pytest.param(signal.SIGWINCH, SI_KERNEL, True, id="a new window size"),
        pytest.param(signal.SIGHUP, SI_KERNEL, False, id="a hang-up is for the leader only"),
        pytest.param(signal.SIGINT, SI_USER, False, id="kill -INT"),
        pytest.param(signal.SIGTERM, SI_USER, False, id="kill"),
    ],
)
def test_what_the_terminal_sends_is_for_the_whole_group(
    number: signal.Signals, code: int, expected: bool
) -> None:
    assert is_for_whole_group(number, code) is expected


def test_the_descriptor_is_closed_at_exec(signals: SignalDescriptor) -> None:
    assert not os.get_inheritable(signals.fileno())
    assert not os.get_blocking(signals.fileno())


def test_every_signal_that_ends_a_program_is_passed_on() -> None:
    assert ENDING < PASSED_ON
