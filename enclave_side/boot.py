"""What a machine of ours needs before anything of ours runs: mounts, random numbers, a name.

`machine` sets up the network, once the workers are on their way.
"""

from collections.abc import Sequence
from typing import Final, Literal

from enclave_side.entropy import prepare_entropy
from enclave_side.heartbeat import HeartbeatError, send_heartbeat
from enclave_side.mounts import mount_missing
from enclave_side.namespaces import Namespace, NamespaceError, set_host_name, unshare
from vsockproxy.config.model import Machine
from vsockproxy.nsm_device import has_nsm

__all__ = ("Ground", "boot")

Ground = Literal["init", "container", "taken_over", "sandbox", "shared"]
"""What we stand on: below PID 1 of a machine; below PID 1 of a container, which has its own files
and another machine's kernel; a machine that we were told to take; a sandbox, whose files are
another machine's too; or a machine that is not ours to set up."""


_DEFAULTS: Final = Machine()

_OF_THE_KERNEL: Final = ("clock", "sysctls")
"""What a container shares with others."""


def boot(settings: Machine, ground: Ground) -> list[str]:
    """Do it, as far as the machine is ours; a line for each thing that could not be done.

    Raises:
        EntropyError: random numbers are not what the file demands.
        HeartbeatError: it demands a heartbeat, and nobody answered.
    """
    if ground in ("sandbox", "shared"):
        return _left_out_here(settings, settings.__struct_fields__)
    left_out = []
    if ground in ("init", "container"):
        left_out += mount_missing(is_whole=ground == "init")
    if ground == "container":
        left_out += _left_out_here(settings, _OF_THE_KERNEL)
    prepare_entropy(settings.entropy)
    left_out += _send_heartbeat(settings, ground)
    if settings.hostname is not None:
        try:
            if ground == "container":
                unshare(Namespace.UTS)  # its name may be the machine's
            set_host_name(settings.hostname)
        except NamespaceError as error:
            left_out.append(f"machine.hostname: {error}")
    return left_out


def _left_out_here(settings: Machine, names: Sequence[str]) -> list[str]:
    names = [
        f"machine.{name}" for name in names if getattr(settings, name) != getattr(_DEFAULTS, name)
    ]
    return [f"left out, since this machine is not ours: {', '.join(names)}"] if names else []


def _send_heartbeat(settings: Machine, ground: Ground) -> list[str]:
    match settings.heartbeat:
        case "on":
            send_heartbeat()
        case "auto" if ground == "init" and has_nsm():
            try:
                send_heartbeat()
            except HeartbeatError as error:
                return [str(error)]
    return []
