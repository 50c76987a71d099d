"""Reads a configuration file again, in a process of its own (`checked_file`)."""

import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import trio

from vsockproxy import processes
from vsockproxy.config.document import Document, Kind
from vsockproxy.control.checked_file import INVALID
from vsockproxy.control.child import Child
from vsockproxy.errors import VsockproxyError
from vsockproxy.passed_memory import empty_document_descriptor, read_document
from vsockproxy.worker_messages import MessageError

__all__ = ("READ_SECONDS", "CheckedFile", "FileNotValid", "read_checked_file")

READ_SECONDS: Final = 30.0
"""How long it may take; a file of ten thousand rules takes some seconds."""

KILL_SECONDS: Final = 1.0
"""How long a killed process is waited for: one that hangs in the kernel may never end."""

MAX_OUTPUT_BYTES: Final = 64 * 1024

_MODULE: Final = "vsockproxy.control.checked_file"


class FileNotValid(VsockproxyError):
    """A file that cannot be used; `lines` say why, as `vsockproxy check` does."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A valid file: its document, and a descriptor of that, which is the holder's to close."""

    document: Document
    descriptor: int


async def read_checked_file(
    file: str, kind: Kind, *, module: str = _MODULE, seconds: float = READ_SECONDS
) -> CheckedFile:
    """Read and check `file`; nothing in it can hold up or end this process.

    Args:
        file: as the user gave it.
        kind: which kind of file it has to be.
        module: the program that does it.
        seconds: its limit of time.

    Raises:
        FileNotValid: it is not valid, or could not be read.
    """
    with ExitStack() as undo:
        try:
            descriptor = empty_document_descriptor()
            undo.callback(os.close, descriptor)
            pid, output = processes.start_with_output(
                processes.module_command(module, file, kind, str(descriptor)), passed=[descriptor]
            )
            os.set_blocking(output, False)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise FileNotValid(f"{file}: cannot be checked: {why}") from None
        undo.callback(os.close, output)
        child = undo.enter_context(Child(pid))
        try:
            with trio.fail_after(seconds):
                said = await _read_all(output)
                status = await child.wait()
        except trio.TooSlowError:
            raise FileNotValid(f"{file}: checking it took more than {seconds:g} s") from None
        finally:
            if not child.has_ended:
                child.send_signal(signal.SIGKILL)
                with trio.move_on_after(KILL_SECONDS, shield=True):
                    await child.wait()
        code = processes.exit_code(status)
        lines = said.decode("utf-8", "surrogateescape").splitlines()
        if code == INVALID and lines:
            raise FileNotValid(*lines)
        if code != 0:
            why = f": {lines[-1]}" if lines else ""
            raise FileNotValid(f"{file}: the process that checked it ended with {code}{why}")
        try:
            # In a thread: a large document takes a while.
            document = await trio.to_thread.run_sync(read_document, descriptor)
        except MessageError as error:
            raise FileNotValid(f"{file}: {error}") from error
        undo.pop_all()
        os.close(output)
    return CheckedFile(document, descriptor)


async def _read_all(pipe: int) -> bytes:
    """What comes until the other end is closed; what is too much is dropped."""
    data = b""
    while True:
        try:
            piece = os.read(pipe, MAX_OUTPUT_BYTES)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(pipe)
            continue
        if not piece:
            return data
        data += piece[: MAX_OUTPUT_BYTES - len(data)]
