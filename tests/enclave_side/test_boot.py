import socket

import pytest

from enclave_side.boot import Ground, boot
from vsockproxy.config.model import Clock, Entropy, Machine

NOT_OURS: tuple[Ground, ...] = ("shared", "sandbox")


@pytest.mark.parametrize("ground", NOT_OURS)
def test_where_the_machine_is_not_ours_defaults_need_no_line(ground: Ground) -> None:
    assert boot(Machine(), ground) == []


@pytest.mark.parametrize("ground", NOT_OURS)
def test_where_the_machine_is_not_ours_what_the_file_wants_is_left_out(ground: Ground) -> None:
    name = socket.gethostname()
    settings = Machine(
        hostname="another",
        entropy=Entropy(source="nsm-hwrng", seed=True),
        clock=Clock(source="parent"),
        heartbeat="on",
        sysctls={"net.core.somaxconn": 1},
    )
    assert boot(settings, ground) == [
        "left out, since this machine is not ours: machine.hostname, machine.entropy, "
        "machine.clock, machine.heartbeat, machine.sysctls"
    ]
    assert socket.gethostname() == name


def test_a_machine_that_was_taken_over_with_defaults_needs_nothing() -> None:
    assert boot(Machine(), "taken_over") == []
