"""The self-test of `vsockproxy doctor` on a real vsock."""

from vsockproxy.diagnosis.probes import try_small_writes


def test_small_writes_come_through_a_real_vsock() -> None:
    test = try_small_writes()
    assert (test.carrier, test.error, test.is_intact) == ("vsock loopback", "", True)
    assert test.read == test.written > 0
