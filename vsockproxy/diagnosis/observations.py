"""What was seen of a machine. Pure values."""

from dataclasses import dataclass

__all__ = ("ModuleTest", "Observations", "StreamTest")


@dataclass(frozen=True, slots=True)
class StreamTest:
    """What came of many small writes that nobody read until the last was made.

    Args:
        carrier: what carried them: `vsock loopback` or `a unix socket`.
        written: bytes that the kernel took.
        read: bytes that came out again.
        is_intact: whether they were the same.
        error: why there is no result; empty if there is one.
    """

    carrier: str
    written: int = 0
    read: int = 0
    is_intact: bool = True
    error: str = ""


@dataclass(frozen=True, slots=True)
class ModuleTest:
    """What the Nitro Secure Module said of itself.

    Args:
        location: where it was asked.
        is_software: whether that is the socket of a software module.
        description: its version, its name and its registers, in one line.
        error: why there is none; empty if there is one.
    """

    location: str
    is_software: bool = False
    description: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What was seen. None, or an empty text, where there was nothing to be seen.

    Args:
        kernel: its release, as uname has it.
        architecture: as uname has it.
        python: its version.
        python_has_vsock: whether its socket module knows AF_VSOCK.
        vsock_error: why a vsock socket cannot be made; empty if it can.
        vsock_buffer_bytes: the largest buffer that a vsock socket was given, of those asked for.
        vsock_modules: those of the kernel's modules for vsock that are loaded.
        g2h_fallback: net.vsock.g2h_fallback.
        is_enclave: whether there is a Nitro Secure Module.
        module: the module that programs are to ask; None if there is none.
        is_parent: whether there is the device that starts enclaves.
        random_source: the kernel's hardware generator.
        clock_source: what the kernel's clock runs by.
        loopback_is_up: whether the interface lo is.
        user_namespace_error: why there are no user namespaces; empty if there are.
        veth_error: why there are no pairs of network devices; empty if there are; None if that
            cannot be found out without a user namespace.
        has_seccomp: whether the kernel has seccomp filters.
        soft_descriptors: the soft limit on open files.
        hard_descriptors: the hard one.
        stream_test: whether many small writes arrive.
    """

    kernel: str
    architecture: str
    python: str
    python_has_vsock: bool
    vsock_error: str
    vsock_buffer_bytes: int | None
    vsock_modules: frozenset[str]
    g2h_fallback: str
    is_enclave: bool
    module: ModuleTest | None
    is_parent: bool
    random_source: str
    clock_source: str
    loopback_is_up: bool | None
    user_namespace_error: str
    veth_error: str | None
    has_seccomp: bool
    soft_descriptors: int
    hard_descriptors: int
    stream_test: StreamTest
