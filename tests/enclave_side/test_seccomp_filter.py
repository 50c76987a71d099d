import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_side.seccomp_filter import (
    ARCHITECTURES,
    Architecture,
    assemble,
    filter_instructions,
)

X86_64 = 0xC000_003E
I386 = 0x4000_0003
AARCH64 = 0xC000_00B7
ARM = 0x4000_0028
RISCV64 = 0xC000_00F3

AF_UNIX, AF_INET, AF_VSOCK = 1, 2, 40
X32 = 0x4000_0000

ALLOWED = "allowed"
NO_VSOCK = errno.EAFNOSUPPORT
UNKNOWN = errno.ENOSYS


def answer(program: bytes, architecture: int, number: int, arguments: tuple[int, ...]) -> str | int:
    """What a kernel makes of the program (kernel/seccomp.c, seccomp_run_filters).

    Only the instructions that a filter of ours has; anything else is an error.
    """
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", number, architecture, 0xDEAD_BEEF_0000, *padded)
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = position = 0
    operand: int
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                assert operand % 4 == 0
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                position += if_true if accumulator == operand else if_false
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                position += if_true if accumulator >= operand else if_false
            case 0x06:  # BPF_RET | BPF_K
                if operand == 0x7FFF_0000:
                    return ALLOWED
                assert operand >> 16 == 5
                return operand & 0xFFFF
            case _:
                raise AssertionError(f"no instruction of ours: {code:#x}")


def fence(machine: str, *, denies_vsock: bool = True) -> bytes:
    return assemble(filter_instructions(ARCHITECTURES[machine], denies_vsock=denies_vsock))


CALLS: dict[str, tuple[str, int, int, tuple[int, ...], str | int]] = {
    "x86-64: a vsock socket": ("x86_64", X86_64, 41, (AF_VSOCK, 1, 0), NO_VSOCK),
    "x86-64: a pair of them": ("x86_64", X86_64, 53, (AF_VSOCK, 1, 0), NO_VSOCK),
    "a family that the kernel cuts to 40": ("x86_64", X86_64, 41, (1 << 32 | AF_VSOCK,), NO_VSOCK),
    "a family with every high bit": ("x86_64", X86_64, 41, (2**64 - 2**32 + AF_VSOCK,), NO_VSOCK),
    "a family of 40 in the high half": ("x86_64", X86_64, 41, (AF_VSOCK << 32 | AF_INET,), ALLOWED),
    "40 in another argument": ("x86_64", X86_64, 41, (AF_INET, AF_VSOCK, AF_VSOCK), ALLOWED),
    "x86-64: a TCP socket": ("x86_64", X86_64, 41, (AF_INET, 1, 0), ALLOWED),
    "x86-64: a unix socket pair": ("x86_64", X86_64, 53, (AF_UNIX, 1, 0), ALLOWED),
    "another call with 40": ("x86_64", X86_64, 42, (AF_VSOCK,), ALLOWED),
    "x86-64: read": ("x86_64", X86_64, 0, (0, 0, 10), ALLOWED),
    "x86-64: execve": ("x86_64", X86_64, 59, (), ALLOWED),
    "x86-64: io_uring_setup": ("x86_64", X86_64, 425, (1,), UNKNOWN),
    "x86-64: io_uring_enter": ("x86_64", X86_64, 426, (3,), UNKNOWN),
    "x86-64: io_uring_register": ("x86_64", X86_64, 427, (3,), UNKNOWN),
    "x86-64: the call before io_uring": ("x86_64", X86_64, 424, (), ALLOWED),
    "x86-64: the call behind io_uring": ("x86_64", X86_64, 428, (), ALLOWED),
    "x32: socket": ("x86_64", X86_64, X32 | 41, (AF_VSOCK,), UNKNOWN),
    "x32: any other": ("x86_64", X86_64, X32, (), UNKNOWN),
    "x32: the last number": ("x86_64", X86_64, X32 | 0x3FFF_FFFF, (), UNKNOWN),
    "the last number before x32": ("x86_64", X86_64, X32 - 1, (), ALLOWED),
    "a negative number": ("x86_64", X86_64, -1, (), UNKNOWN),
    "a negative number with the x32 bit": ("x86_64", X86_64, -(2**31) | X32 | 41, (), UNKNOWN),
    "i386: socketcall": ("x86_64", I386, 102, (1,), UNKNOWN),
    "i386: socket": ("x86_64", I386, 359, (AF_VSOCK,), UNKNOWN),
    "i386: exit": ("x86_64", I386, 1, (), UNKNOWN),
    "i386: what is socket on x86-64": ("x86_64", I386, 41, (AF_INET,), UNKNOWN),
    "an architecture of another world": ("x86_64", RISCV64, 41, (), UNKNOWN),
    "aarch64: a vsock socket": ("aarch64", AARCH64, 198, (AF_VSOCK,), NO_VSOCK),
    "aarch64: a pair of them": ("aarch64", AARCH64, 199, (AF_VSOCK,), NO_VSOCK),
    "aarch64: high bits": ("aarch64", AARCH64, 198, (1 << 40 | AF_VSOCK,), NO_VSOCK),
    "aarch64: a TCP socket": ("aarch64", AARCH64, 198, (AF_INET,), ALLOWED),
    "aarch64: io_uring_setup": ("aarch64", AARCH64, 425, (1,), UNKNOWN),
    "aarch64: what is socket on x86-64": ("aarch64", AARCH64, 41, (AF_VSOCK,), ALLOWED),
    "arm: socket": ("aarch64", ARM, 281, (AF_VSOCK,), UNKNOWN),
    "arm: what is socket on aarch64": ("aarch64", ARM, 198, (AF_INET,), UNKNOWN),
}


@pytest.mark.parametrize(
    ("machine", "architecture", "number", "arguments", "expected"), CALLS.values(), ids=CALLS
)
def test_a_call_is_answered(
    machine: str, architecture: int, number: int, arguments: tuple[int, ...], expected: str | int
) -> None:
    assert answer(fence(machine), architecture, number, arguments) == expected


OPEN: dict[str, tuple[int, int, tuple[int, ...], str | int]] = {
    "a vsock socket": (X86_64, 41, (AF_VSOCK, 1, 0), ALLOWED),
    "a pair of them": (X86_64, 53, (AF_VSOCK, 1, 0), ALLOWED),
    "io_uring_setup": (X86_64, 425, (1,), ALLOWED),
    "read": (X86_64, 0, (), ALLOWED),
    "x32: socket": (X86_64, X32 | 41, (AF_VSOCK,), UNKNOWN),
    "i386: socketcall": (I386, 102, (1,), UNKNOWN),
}


@pytest.mark.parametrize(
    ("architecture", "number", "arguments", "expected"), OPEN.values(), ids=OPEN
)
def test_a_call_is_answered_where_vsock_is_allowed(
    architecture: int, number: int, arguments: tuple[int, ...], expected: str | int
) -> None:
    program = fence("x86_64", denies_vsock=False)
    assert answer(program, architecture, number, arguments) == expected


@pytest.mark.parametrize("machine", ARCHITECTURES)
@given(
    number=st.integers(-(2**31), 2**31 - 1),
    family=st.integers(0, 2**64 - 1),
    architecture=st.sampled_from([X86_64, I386, AARCH64, ARM]) | st.integers(0, 2**32 - 1),
)
def test_no_number_and_family_makes_a_vsock_socket(
    machine: str, number: int, family: int, architecture: int
) -> None:
    native = ARCHITECTURES[machine]
    answered = answer(fence(machine), architecture, number, (family,))
    if architecture != native.identifier:
        assert answered == UNKNOWN
    elif number in (native.socket, native.socketpair):
        assert answered == (NO_VSOCK if family % 2**32 == AF_VSOCK else ALLOWED)
    elif answered != ALLOWED:
        assert answered == UNKNOWN


@pytest.mark.parametrize("denies_vsock", [True, False])
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_program_is_one_that_the_kernel_takes(machine: str, *, denies_vsock: bool) -> None:
    """kernel/seccomp.c, seccomp_check_filter; net/core/filter.c, bpf_check_classic."""
    program = list(struct.iter_unpack("<HBBI", fence(machine, denies_vsock=denies_vsock)))
    assert 0 < len(program) <= 4096
    assert program[-1][0] == 0x06, "the last instruction is an answer"
    for position, (code, if_true, if_false, operand) in enumerate(program):
        assert position + 1 + max(if_true, if_false) < len(program) or code == 0x06
        if code == 0x20:
            assert operand < 64, "within struct seccomp_data"


def test_without_another_convention_no_number_is_foreign() -> None:
    plain = Architecture(AARCH64, socket=198, socketpair=199)
    program = assemble(filter_instructions(plain, denies_vsock=True))
    assert answer(program, AARCH64, X32 | 198, (AF_VSOCK,)) == ALLOWED
