from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from vsockproxy.diagnosis.observations import ModuleTest, Observations, StreamTest
from vsockproxy.diagnosis.verdicts import Level, exit_code, judge, parse_release

HEALTHY = Observations(
    kernel="6.6.79",
    architecture="x86_64",
    python="3.11.9",
    python_has_vsock=True,
    vsock_error="",
    vsock_buffer_bytes=8 << 20,
    vsock_modules=frozenset({"vsock"}),
    g2h_fallback="",
    is_enclave=False,
    module=None,
    is_parent=False,
    random_source="virtio_rng.0",
    clock_source="tsc",
    loopback_is_up=True,
    user_namespace_error="",
    veth_error="",
    has_seccomp=True,
    soft_descriptors=1024,
    hard_descriptors=524_288,
    stream_test=StreamTest("vsock loopback", 400_000, 400_000),
)
MODULE = ModuleTest("/dev/nsm", description="version 1.0.0, i-1-enc2, 16 of 32 registers locked")
ENCLAVE = replace(
    HEALTHY,
    is_enclave=True,
    module=MODULE,
    random_source="nsm-hwrng",
    clock_source="kvm-clock",
)
PARENT = replace(HEALTHY, is_parent=True)


@pytest.mark.parametrize("seen", [HEALTHY, ENCLAVE, PARENT], ids=["any", "enclave", "parent"])
def test_a_healthy_machine_has_no_warning(seen: Observations) -> None:
    findings = judge(seen)
    assert {finding.level for finding in findings} == {"ok"}
    assert len({finding.subject for finding in findings}) == len(findings) == 13
    assert exit_code(findings, strict=True) == 0


VERDICTS: dict[str, tuple[Observations, Mapping[str, Any], str, Level, str]] = {
    "no module": (HEALTHY, {}, "attestation", "ok", "no Nitro Secure Module: this is no enclave"),
    "a module": (
        ENCLAVE,
        {},
        "attestation",
        "ok",
        "/dev/nsm, version 1.0.0, i-1-enc2, 16 of 32 registers locked",
    ),
    "a software module": (
        HEALTHY,
        {"module": ModuleTest("/run/nsm.sock", is_software=True, description="version 1.0.0")},
        "attestation",
        "warning",
        "/run/nsm.sock is a software NSM, which proves nothing: version 1.0.0: for development",
    ),
    "a module that does not answer": (
        ENCLAVE,
        {"module": ModuleTest("/dev/nsm", error="/dev/nsm: no answer in time")},
        "attestation",
        "error",
        "/dev/nsm: no answer in time: a Nitro enclave has one at /dev/nsm",
    ),
    "an old enclave kernel": (
        ENCLAVE,
        {"kernel": "4.14.256-209.484.amzn2.x86_64"},
        "kernel",
        "warning",
        "can wait for each other for ever: build the image with a kernel",
    ),
    "the same kernel elsewhere": (HEALTHY, {"kernel": "4.14.256"}, "kernel", "ok", "4.14.256"),
    "a kernel that corrupts large packets": (
        ENCLAVE,
        {"kernel": "6.18.1"},
        "kernel",
        "ok",
        "packets above 32 KiB may arrive corrupted, ours are never longer",
    ),
    "a Python without vsock": (
        HEALTHY,
        {"python_has_vsock": False},
        "python",
        "error",
        "built without AF_VSOCK: use the system's Python",
    ),
    "a laptop without vsock": (
        HEALTHY,
        {"vsock_error": "Address family not supported by protocol"},
        "vsock",
        "warning",
        "cannot be made: Address family not supported by protocol: modprobe vsock",
    ),
    "a parent without vsock": (
        PARENT,
        {"vsock_error": "Permission denied"},
        "vsock",
        "error",
        "cannot be made: Permission denied",
    ),
    "small buffers": (
        HEALTHY,
        {"vsock_buffer_bytes": 262_144},
        "vsock buffers",
        "warning",
        "up to 256 KiB: update the kernel",
    ),
    "a parent that has virtual machines too": (
        PARENT,
        {"vsock_modules": frozenset({"vhost_vsock"}), "g2h_fallback": "1"},
        "vsock routing",
        "warning",
        "(net.vsock.g2h_fallback is 1): rmmod vhost_vsock",
    ),
    "an enclave with another generator": (
        ENCLAVE,
        {"random_source": ""},
        "random numbers",
        "error",
        "the kernel's generator is none, not nsm-hwrng: boot a kernel",
    ),
    "an enclave kernel from before the repairs": (
        ENCLAVE,
        {"kernel": "5.15.100"},
        "random numbers",
        "warning",
        "from before 5.17.12: set machine.entropy.seed: true",
    ),
    "an enclave with another clock": (
        ENCLAVE,
        {"clock_source": "tsc"},
        "clock",
        "warning",
        "runs by tsc, not kvm-clock",
    ),
    "no lo": (HEALTHY, {"loopback_is_up": False}, "loopback", "warning", "lo is down: as PID 1"),
    "no user namespaces": (
        HEALTHY,
        {"user_namespace_error": "Operation not permitted"},
        "user namespaces",
        "warning",
        "there are none: Operation not permitted: a sandbox needs them",
    ),
    "no user namespaces in an enclave": (
        ENCLAVE,
        {"user_namespace_error": "Invalid argument"},
        "user namespaces",
        "ok",
        "there are none",
    ),
    "no veth": (
        HEALTHY,
        {"veth_error": "Operation not supported"},
        "veth",
        "warning",
        "Operation not supported: names are off without it",
    ),
    "veth that cannot be tried": (HEALTHY, {"veth_error": None}, "veth", "ok", "not tried"),
    "no seccomp": (HEALTHY, {"has_seccomp": False}, "seccomp", "error", "has no filters"),
    "another architecture": (
        HEALTHY,
        {"architecture": "riscv64"},
        "seccomp",
        "error",
        "no filter is known for riscv64",
    ),
    "few descriptors": (
        HEALTHY,
        {"hard_descriptors": 4096},
        "descriptors",
        "warning",
        "1024, which we raise to 4096: raise the hard limit",
    ),
    "lost bytes": (
        HEALTHY,
        {"stream_test": StreamTest("vsock loopback", 400_000, 399_800, is_intact=False)},
        "small writes",
        "error",
        "399800 of 400000 bytes came through vsock loopback: update the kernel",
    ),
    "other bytes": (
        HEALTHY,
        {"stream_test": StreamTest("vsock loopback", 400, 400, is_intact=False)},
        "small writes",
        "error",
        "vsock loopback changed what it carried",
    ),
    "a test that could not be made": (
        HEALTHY,
        {"stream_test": StreamTest("vsock loopback", error="timed out")},
        "small writes",
        "warning",
        "not tried over vsock loopback: timed out",
    ),
}


@pytest.mark.parametrize(
    ("seen", "changes", "subject", "level", "text"), VERDICTS.values(), ids=VERDICTS
)
def test_verdict(
    seen: Observations, changes: Mapping[str, Any], subject: str, level: Level, text: str
) -> None:
    findings = judge(replace(seen, **changes))
    (finding,) = (each for each in findings if each.subject == subject)
    assert finding.level == level
    assert text in str(finding)
    assert str(finding).startswith(f"{level:<8} {subject}: ")
    assert exit_code(findings, strict=False) == (level == "error")
    assert exit_code(findings, strict=True) == (level != "ok")


RELEASES = {
    "6.18.44-fc-v669": (6, 18, 44),
    "4.14.256-209.484.amzn2.x86_64": (4, 14, 256),
    "6.6": (6, 6, 0),
    "7.2.7": (7, 2, 7),
    "unknown": (0, 0, 0),
}


@pytest.mark.parametrize(("text", "numbers"), RELEASES.items())
def test_release(text: str, numbers: tuple[int, int, int]) -> None:
    assert parse_release(text) == numbers
