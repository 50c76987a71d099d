import os

import pytest

from enclave_side.boot import Ground
from enclave_side.commands import COMMANDS_LEFT_OUT, TwoCommandsError, fence_commands
from vsockproxy.addresses import UnixAddress
from vsockproxy.config.capabilities import capability_mask
from vsockproxy.config.model import Command, EnclaveConfig, SupervisedCommand


def config(*commands: SupervisedCommand, common: Command | None = None) -> EnclaveConfig:
    return EnclaveConfig(
        parent=UnixAddress("/link"), command=common or Command(), commands=list(commands)
    )


WEB = SupervisedCommand(name="web", run=["web"])


def test_nothing_at_all() -> None:
    found = fence_commands(config(), [], "init")
    assert not found.are_any
    assert (found.single, found.several, found.left_out) == (None, [], [])


@pytest.mark.parametrize("ground", ["init", "taken_over", "shared"])
def test_both_are_an_error(ground: Ground) -> None:
    with pytest.raises(TwoCommandsError, match="the file has commands, and there is one on"):
        fence_commands(config(WEB), ["sh"], ground)


def test_in_a_sandbox_the_command_line_counts() -> None:
    found = fence_commands(config(WEB), ["sh", "-c", "true"], "sandbox")
    assert found.single is not None
    assert found.single.settings.run == ["sh", "-c", "true"]
    assert found.several == []
    assert COMMANDS_LEFT_OUT in found.left_out


def test_what_a_command_leaves_out_is_as_for_all() -> None:
    common = Command(vsock="allow", stop_grace=7)
    own = SupervisedCommand(name="own", run=["own"], vsock="deny", stop_grace=3)
    web, fenced = fence_commands(config(WEB, own, common=common), [], "shared").several
    assert (web.fence.demands_filter, web.stop_grace) == (False, 7)
    assert (fenced.fence.demands_filter, fenced.stop_grace) == (True, 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give")
def test_capabilities_may_be_fewer_than_for_all() -> None:
    common = Command(capabilities=["KILL", "CHOWN"])
    own = SupervisedCommand(name="own", run=["own"], capabilities=[])
    web, fenced = fence_commands(config(WEB, own, common=common), [], "shared").several
    assert web.fence.capabilities == capability_mask(["KILL", "CHOWN"])
    assert fenced.fence.capabilities == 0


def test_the_same_line_is_said_once() -> None:
    other = SupervisedCommand(name="other", run=["other"])
    found = fence_commands(config(WEB, other), [], "shared")
    assert len(found.left_out) == len(set(found.left_out)) <= 1
