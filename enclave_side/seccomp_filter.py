"""The fence's seccomp filter: a program of classic BPF as bytes. Pure.

The kernel runs it at each system call of the command, and of everything the command starts, over
`struct seccomp_data` (include/uapi/linux/seccomp.h). What it answers, and why so:

- `socket` and `socketpair` of AF_VSOCK: EAFNOSUPPORT, as of a kernel without vsock. Only the low
  half of the argument counts, since the kernel takes the family as an int (net/socket.c).
- io_uring, whose IORING_OP_SOCKET makes sockets past any filter: ENOSYS, as of a kernel without
  it (AWS's 4.14 for enclaves is one). Whoever uses io_uring has a way without it for that answer:
  libuv and Netty go back to epoll on any error; Go and the JDK never use it. EPERM, on the other
  hand, is what some report to the user as a mistake of the system's set-up.
- every call of another architecture: ENOSYS, since its numbers mean something else. On x86-64
  those are i386 (int 0x80, where `socketcall` has its arguments in memory that no filter reads)
  and x32 (a bit in the number); on aarch64 it is 32-bit ARM.
- everything else is allowed.
"""

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ("ARCHITECTURES", "Architecture", "Instruction", "assemble", "filter_instructions")


@dataclass(frozen=True, slots=True)
class Architecture:
    """How system calls are made on one kind of machine.

    Args:
        identifier: AUDIT_ARCH_* (include/uapi/linux/audit.h).
        socket: number of the system call.
        socketpair: number of the system call.
        first_foreign: numbers from here on belong to another convention (x32); None without one.
    """

    identifier: int
    socket: int
    socketpair: int
    first_foreign: int | None = None


ARCHITECTURES: Final = {
    # arch/x86/entry/syscalls/syscall_64.tbl, and __X32_SYSCALL_BIT of uapi/asm/unistd.h beside it
    "x86_64": Architecture(0xC000_003E, socket=41, socketpair=53, first_foreign=0x4000_0000),
    # include/uapi/asm-generic/unistd.h
    "aarch64": Architecture(0xC000_00B7, socket=198, socketpair=199),
}
"""By the machine's name, as uname has it."""

_IO_URING: Final = (425, 426, 427)
"""io_uring_setup, io_uring_enter and io_uring_register: the same numbers on every architecture."""

_AF_VSOCK: Final = 40  # include/linux/socket.h

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]. Both machines
# are little-endian, so the low half of the first argument comes first.
_NUMBER_OFFSET: Final = 0
_ARCHITECTURE_OFFSET: Final = 4
_FIRST_ARGUMENT_OFFSET: Final = 16

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS (include/uapi/linux/bpf_common.h)
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_ALLOW: Final = 0x7FFF_0000  # SECCOMP_RET_ALLOW
_FAIL: Final = 0x0005_0000  # SECCOMP_RET_ERRNO, with the errno in the low 16 bits

_INSTRUCTION: Final = struct.Struct("=HBBI")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, `struct sock_filter` (include/uapi/linux/filter.h).

    Args:
        code: what it does.
        if_true: of a jump, how many instructions it skips if its condition holds.
        if_false: of a jump, how many it skips if not.
        operand: the value it compares with, the offset it loads from, or the answer.
    """

    code: int
    operand: int
    if_true: int = 0
    if_false: int = 0


def filter_instructions(architecture: Architecture, *, denies_vsock: bool) -> list[Instruction]:
    """The filter for one kind of machine.

    Args:
        architecture: the machine's.
        denies_vsock: False leaves AF_VSOCK and io_uring open.
    """
    unsupported = _fail(errno.ENOSYS)
    program = [
        _load(_ARCHITECTURE_OFFSET),
        *_unless_equal(architecture.identifier, unsupported),
        _load(_NUMBER_OFFSET),
    ]
    if architecture.first_foreign is not None:
        program += _if_at_least(architecture.first_foreign, unsupported)
    if denies_vsock:
        for number in _IO_URING:
            program += _if_equal(number, unsupported)
        no_vsock = [
            _load(_FIRST_ARGUMENT_OFFSET),
            *_if_equal(_AF_VSOCK, _fail(errno.EAFNOSUPPORT)),
            _allow(),
        ]
        for number in (architecture.socket, architecture.socketpair):
            program += _if_equal(number, no_vsock)
    return [*program, _allow()]


def assemble(program: Iterable[Instruction]) -> bytes:
    """The program as the kernel takes it: an array of `struct sock_filter`."""
    return b"".join(
        _INSTRUCTION.pack(each.code, each.if_true, each.if_false, each.operand) for each in program
    )


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, offset)


def _allow() -> Instruction:
    return Instruction(_RETURN, _ALLOW)


def _fail(number: int) -> list[Instruction]:
    return [Instruction(_RETURN, _FAIL | number)]


def _if_equal(value: int, block: list[Instruction]) -> list[Instruction]:
    """Run `block`, which ends with an answer, if what was loaded is `value`."""
    return [Instruction(_JUMP_IF_EQUAL, value, if_false=len(block)), *block]


def _unless_equal(value: int, block: list[Instruction]) -> list[Instruction]:
    return [Instruction(_JUMP_IF_EQUAL, value, if_true=len(block)), *block]


def _if_at_least(value: int, block: list[Instruction]) -> list[Instruction]:
    """Unsigned, so that it holds for negative numbers too."""
    return [Instruction(_JUMP_IF_AT_LEAST, value, if_false=len(block)), *block]
