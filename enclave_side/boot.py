"""What a machine of ours needs before anything of ours runs: mounts, random numbers, a name.

`machine` sets up the network, once the workers are on their way.
"""

import socket
from typing import Final, Literal

from enclave_side.entropy import prepare_entropy
from enclave_side.heartbeat import HeartbeatError, send_heartbeat
from enclave_side.mounts import mount_missing
from enclave_side.nsm_device import has_nsm
from vsockproxy.config.model import Machine
from vsockproxy.processes import is_init_of_machine

__all__ = ("Ground", "boot")

Ground = Literal["init", "taken_over", "sandbox", "shared"]
"""What we stand on: below PID 1; a machine that we were told to take; a sandbox, whose kernel and
files are another machine's; or a machine that is not ours to set up."""


_DEFAULTS: Final = Machine()


def boot(settings: Machine, ground: Ground) -> list[str]:
    """Do it, as far as the machine is ours; a line for each thing that could not be done.

    Raises:
        EntropyError: random numbers are not what the file demands.
        HeartbeatError: it demands a heartbeat, and nobody answered.
    """
    if ground in ("sandbox", "shared"):
        return _left_out_here(settings)
    left_out = mount_missing() if ground == "init" else []
    prepare_entropy(settings.entropy)
    left_out += _send_heartbeat(settings, ground)
    if settings.hostname is not None:
        try:
            socket.sethostname(settings.hostname)
        except OSError as error:
            left_out.append(f"machine.hostname: {error.strerror}")
    return left_out


def _left_out_here(settings: Machine) -> list[str]:
    names = [
        f"machine.{name}"
        for name in settings.__struct_fields__
        if getattr(settings, name) != getattr(_DEFAULTS, name)
    ]
    return [f"left out, since this machine is not ours: {', '.join(names)}"] if names else []


def _send_heartbeat(settings: Machine, ground: Ground) -> list[str]:
    match settings.heartbeat:
        case "on":
            send_heartbeat()
        case "auto" if ground == "init" and is_init_of_machine() and has_nsm():
            try:
                send_heartbeat()
            except HeartbeatError as error:
                return [str(error)]
    return []
