"""What is to run: the command of the command line or those of the file, each with its fence."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from enclave_side.boot import Ground
from enclave_side.fence import Fence, plan_fence
from vsockproxy.config.model import Command, EnclaveConfig, SupervisedCommand
from vsockproxy.errors import VsockproxyError

__all__ = ("FencedCommand", "FencedCommands", "TwoCommandsError", "fence_commands")

COMMANDS_LEFT_OUT: Final = "commands are left out, in a sandbox runs what its command line says"


class TwoCommandsError(VsockproxyError):
    """Both the file and the command line say what is to run."""

    def __init__(self) -> None:
        super().__init__(
            "the file has commands, and there is one on the command line too: write it into the "
            "file, or remove commands"
        )


@dataclass(frozen=True, slots=True)
class FencedCommand:
    """A command and what it may not do.

    Args:
        settings: as in the file; one of the command line has no name.
        fence: how it is to be started.
        stop_grace: seconds from SIGTERM to SIGKILL.
    """

    settings: SupervisedCommand
    fence: Fence
    stop_grace: float


@dataclass(slots=True)
class FencedCommands:
    """Either one command, which has our terminal, or those of the file.

    Args:
        single: the one of the command line; None if there is none.
        several: those of the file.
        left_out: what of the file cannot be done here, a line for each.
    """

    single: FencedCommand | None = None
    several: list[FencedCommand] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def are_any(self) -> bool:
        """Whether anything is to run."""
        return self.single is not None or bool(self.several)


def fence_commands(config: EnclaveConfig, words: Sequence[str], ground: Ground) -> FencedCommands:
    """Work out what is to run.

    Args:
        config: an enclave's.
        words: the command of the command line; may be empty.
        ground: what we stand on.

    Raises:
        FenceError: a fence cannot be had here.
        TwoCommandsError: there are both.
    """
    found = FencedCommands()
    if words:
        if config.commands and ground != "sandbox":
            raise TwoCommandsError
        if config.commands:
            found.left_out.append(COMMANDS_LEFT_OUT)
        settings = SupervisedCommand(name="", run=list(words))
        found.single = _fence(settings, config.command)
        found.left_out += found.single.fence.left_out
    else:
        found.several = [_fence(each, config.command) for each in config.commands]
        lines = [line for each in found.several for line in each.fence.left_out]
        found.left_out += dict.fromkeys(lines)
    return found


def _fence(settings: SupervisedCommand, common: Command) -> FencedCommand:
    grace = common.stop_grace if settings.stop_grace is None else settings.stop_grace
    own = Command(
        user=common.user if settings.user is None else settings.user,
        capabilities=(
            common.capabilities if settings.capabilities is None else settings.capabilities
        ),
        vsock=common.vsock if settings.vsock is None else settings.vsock,
        stop_grace=grace,
    )
    return FencedCommand(settings, plan_fence(own), grace)
