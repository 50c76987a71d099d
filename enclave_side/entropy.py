"""Random numbers: the kernel's generator is the one it has to be, and has a seed of the module's.

An enclave has no disk, no input and no network to gather entropy from. Bytes that are written to
/dev/random are mixed in and not credited: the kernel goes on as if it had none. RNDADDENTROPY
credits them (random(4)).
"""

import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vsockproxy.attestation.nsm_errors import NsmError
from vsockproxy.attestation.nsm_messages import encode_get_random, parse_get_random
from vsockproxy.config.model import Entropy
from vsockproxy.errors import VsockproxyError
from vsockproxy.nsm_device import Nsm

__all__ = ("CURRENT_SOURCE", "EntropyError", "credit_entropy", "prepare_entropy")

CURRENT_SOURCE: Final = Path("/sys/class/misc/hw_random/rng_current")

_RNDADDENTROPY: Final = 0x4008_5203  # _IOW('R', 3, int[2]), include/uapi/linux/random.h
_HEADER: Final = struct.Struct("=ii")
"""struct rand_pool_info: bits to credit, and the number of bytes that follow."""
_BITS: Final = 8
_WORD_BYTES: Final = 4


class EntropyError(VsockproxyError):
    """The random numbers are not what the file demands: nothing may start."""


def prepare_entropy(
    settings: Entropy,
    *,
    ask: Callable[[bytes], bytes] | None = None,
    credit: Callable[[bytes], None] | None = None,
    current_source: Path = CURRENT_SOURCE,
) -> None:
    """See to it that the kernel's random numbers are what the file demands.

    Args:
        settings: the section of the file.
        ask: sends a request to the Nitro Secure Module, and returns its response; that of this
            machine if None.
        credit: adds random bytes to the kernel's; `credit_entropy` if None.
        current_source: where the kernel says what its hardware generator is.

    Raises:
        EntropyError: they are not, and cannot be made so.
    """
    if settings.source is not None:
        _check_source(settings.source, current_source)
    if settings.seed:
        try:
            random = parse_get_random((ask or Nsm().exchange)(encode_get_random()))
        except NsmError as error:
            raise EntropyError(
                f"machine.entropy.seed: {error}: a Nitro enclave has such a module: write false "
                "elsewhere"
            ) from error
        (credit or credit_entropy)(random)


def _check_source(wanted: str, path: Path) -> None:
    try:
        current = path.read_text().strip()
    except OSError as error:
        raise EntropyError(f"machine.entropy.source: {path}: {error.strerror}") from error
    if current != wanted:
        raise EntropyError(
            f"machine.entropy.source: the kernel's generator is {current!r}, not {wanted!r} "
            f"({path}): boot a kernel that has it, or write another"
        )


def credit_entropy(random: bytes, device: str = "/dev/random") -> None:
    """Add random bytes to the kernel's, with all their bits.

    Raises:
        EntropyError: not permitted (that takes CAP_SYS_ADMIN), or there is no such device.
    """
    header = _HEADER.pack(len(random) * _BITS, len(random))
    padding = bytes(-len(random) % _WORD_BYTES)
    try:
        descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _RNDADDENTROPY, header + random + padding)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise EntropyError(f"machine.entropy.seed: {device}: {error.strerror}") from error
