"""What the observations mean: a line for each, with what to do. Pure.

The kernels' traps are those that others have met: corruption of packets above 32 KiB (Linux commit
6693731487a8), many small packets that use up a small buffer (the mitigation of CVE-2026-23086),
drivers of both sides that wait for each other (aws-nitro-enclaves-sdk-bootstrap has the patch), and
CIDs that a loaded vhost_vsock takes for itself.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from vsockproxy.diagnosis.observations import Observations

__all__ = ("Finding", "Level", "exit_code", "judge")

Level = Literal["ok", "warning", "error"]

LEAST_BUFFER_BYTES: Final = 1024 * 1024
"""Of a vsock socket; 256 KiB are used up by some 450 small packets."""

LEAST_DESCRIPTORS: Final = 16_384
"""Each stream has one or two of them in a worker."""

ARCHITECTURES: Final = ("x86_64", "aarch64")
"""Those that the command's seccomp filter is known for."""

FIXED_RANDOM: Final = (5, 17, 12)
"""The first kernel whose random numbers have the fixes of 2022 (random.c)."""

OLD_ENCLAVE: Final = (5, 0, 0)
"""nitro-cli's own kernels, 4.14, are from before the patch against waiting for each other."""

LARGE_PACKETS: Final = (6, 17, 0)
"""The first of Linus Torvalds' kernels with commit 6693731487a8."""

_RELEASE: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: how it is, of what, what was seen, and what to do about it."""

    level: Level
    subject: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        mend = f": {self.mend}" if self.mend else ""
        return f"{self.level:<8} {self.subject}: {self.text}{mend}"


def judge(seen: Observations) -> list[Finding]:
    """All findings, in an order for reading."""
    return [finding for verdict in _VERDICTS for finding in verdict(seen)]


def exit_code(findings: Sequence[Finding], *, strict: bool) -> int:
    """1 if there is an error, or with `strict` a warning; else 0."""
    bad = ("warning", "error") if strict else ("error",)
    return int(any(finding.level in bad for finding in findings))


def parse_release(text: str) -> tuple[int, int, int]:
    """The numbers of a kernel's release; zeros where there are none."""
    match = _RELEASE.match(text)
    if match is None:
        return 0, 0, 0
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


def _kernel(seen: Observations) -> Iterator[Finding]:
    release = parse_release(seen.kernel)
    name = f"Linux {seen.kernel}, {seen.architecture}"
    if seen.is_enclave and release < OLD_ENCLAVE:
        text = f"{name}: its vsock driver and the parent's can wait for each other for ever"
        mend = "build the image with a kernel of aws-nitro-enclaves-sdk-bootstrap (6.6)"
        yield Finding("warning", "kernel", text, mend)
    elif release >= LARGE_PACKETS:
        text = f"{name}; packets above 32 KiB may arrive corrupted, ours are never longer"
        yield Finding("ok", "kernel", text)
    else:
        yield Finding("ok", "kernel", name)


def _python(seen: Observations) -> Iterator[Finding]:
    if seen.python_has_vsock:
        yield Finding("ok", "python", f"{seen.python}, with AF_VSOCK")
    else:
        text = f"{seen.python} was built without AF_VSOCK"
        mend = "use the system's Python, or a standalone build from June 2026 on"
        yield Finding("error", "python", text, mend)


def _vsock(seen: Observations) -> Iterator[Finding]:
    if not seen.python_has_vsock:
        return
    if seen.vsock_error:
        level: Level = "error" if seen.is_enclave or seen.is_parent else "warning"
        text = f"a vsock socket cannot be made: {seen.vsock_error}"
        yield Finding(level, "vsock", text, "modprobe vsock; a sandbox does without")
        return
    modules = " ".join(sorted(seen.vsock_modules)) or "no module of its own"
    yield Finding("ok", "vsock", modules)
    if seen.vsock_buffer_bytes is not None:
        size = f"buffers of up to {seen.vsock_buffer_bytes // 1024} KiB"
        if seen.vsock_buffer_bytes < LEAST_BUFFER_BYTES:
            mend = "update the kernel: with less than 1 MiB many small packets reset a connection"
            yield Finding("warning", "vsock buffers", size, mend)
        else:
            yield Finding("ok", "vsock buffers", size)


def _routing(seen: Observations) -> Iterator[Finding]:
    if seen.is_enclave or "vhost_vsock" not in seen.vsock_modules:
        return
    text = (
        "vhost_vsock is loaded: connections that a program here makes to an enclave's CID may go "
    )
    text += "to a virtual machine instead"
    if seen.g2h_fallback:
        text += f" (net.vsock.g2h_fallback is {seen.g2h_fallback})"
    mend = "rmmod vhost_vsock; what enclaves dial, as ours do, is not affected"
    yield Finding("warning", "vsock routing", text, mend)


def _random(seen: Observations) -> Iterator[Finding]:
    source = seen.random_source or "none"
    if seen.is_enclave and source != "nsm-hwrng":
        text = f"the kernel's generator is {source}, not nsm-hwrng"
        mend = "boot a kernel that has it, and demand it by machine.entropy.source"
        yield Finding("error", "random numbers", text, mend)
    elif seen.is_enclave and parse_release(seen.kernel) < FIXED_RANDOM:
        text = f"{source}, with a kernel from before 5.17.12"
        yield Finding("warning", "random numbers", text, "set machine.entropy.seed: true")
    else:
        yield Finding("ok", "random numbers", f"the kernel's hardware generator is {source}")


def _module(seen: Observations) -> Iterator[Finding]:
    module, subject = seen.module, "attestation"
    if module is None:
        yield Finding("ok", subject, "no Nitro Secure Module: this is no enclave")
    elif module.error:
        mend = "a Nitro enclave has one at /dev/nsm; correct VSOCKPROXY_NSM if it is set"
        yield Finding("error", subject, module.error, mend)
    elif module.is_software:
        text = f"{module.location} is a software NSM, which proves nothing: {module.description}"
        yield Finding("warning", subject, text, "for development and tests only")
    else:
        yield Finding("ok", subject, f"{module.location}, {module.description}")


def _clock(seen: Observations) -> Iterator[Finding]:
    source = seen.clock_source or "unknown"
    if seen.is_enclave and source != "kvm-clock":
        mend = "boot a kernel that has kvm-clock; see machine.clock"
        yield Finding("warning", "clock", f"it runs by {source}, not kvm-clock", mend)
    else:
        yield Finding("ok", "clock", f"it runs by {source}")


def _network(seen: Observations) -> Iterator[Finding]:
    if seen.loopback_is_up is False:
        mend = "as PID 1, or with --take-over, we bring it up"
        yield Finding("warning", "loopback", "the interface lo is down", mend)
    elif seen.loopback_is_up:
        yield Finding("ok", "loopback", "the interface lo is up")
    if seen.user_namespace_error:
        text = f"there are none: {seen.user_namespace_error}"
        level: Level = "ok" if seen.is_enclave else "warning"
        mend = "a sandbox needs them, or root: `vsockproxy sandbox -- true` says how to permit them"
        yield Finding(level, "user namespaces", text, mend)
    else:
        yield Finding("ok", "user namespaces", "they can be made")
    if seen.veth_error is None:
        yield Finding("ok", "veth", "not tried, since that takes root or a user namespace")
    elif seen.veth_error:
        mend = "names are off without it; use the proxies, or a kernel with CONFIG_VETH"
        yield Finding("warning", "veth", seen.veth_error, mend)
    else:
        yield Finding("ok", "veth", "pairs of network devices can be made")


def _fence(seen: Observations) -> Iterator[Finding]:
    mend = "use another kernel, or command: {vsock: allow}, which lets the command past the list"
    if not seen.has_seccomp:
        yield Finding("error", "seccomp", "this kernel has no filters", mend)
    elif seen.architecture not in ARCHITECTURES:
        text = f"no filter is known for {seen.architecture}"
        yield Finding("error", "seccomp", text, mend)
    else:
        yield Finding("ok", "seccomp", "the command can be fenced in")


def _descriptors(seen: Observations) -> Iterator[Finding]:
    text = f"{seen.soft_descriptors}, which we raise to {seen.hard_descriptors}"
    if seen.hard_descriptors < LEAST_DESCRIPTORS:
        mend = "raise the hard limit (LimitNOFILE= of a unit), or lower limits.streams"
        yield Finding("warning", "descriptors", text, mend)
    else:
        yield Finding("ok", "descriptors", text)


def _small_writes(seen: Observations) -> Iterator[Finding]:
    test = seen.stream_test
    subject = "small writes"
    if test.error:
        yield Finding("warning", subject, f"not tried over {test.carrier}: {test.error}")
    elif test.read != test.written or not test.is_intact:
        lost = f"{test.read} of {test.written} bytes came through {test.carrier}"
        text = lost if test.read != test.written else f"{test.carrier} changed what it carried"
        mend = "update the kernel: it loses bytes, which ends our sessions and spoils raw streams"
        yield Finding("error", subject, text, mend)
    else:
        yield Finding("ok", subject, f"all of {test.written} bytes came through {test.carrier}")


_VERDICTS: Final[tuple[Callable[[Observations], Iterator[Finding]], ...]] = (
    _kernel,
    _python,
    _vsock,
    _routing,
    _random,
    _module,
    _clock,
    _network,
    _fence,
    _descriptors,
    _small_writes,
)
