"""Serves the software module on its socket: one request a packet, one response a packet.

It is for development and tests, and says so in the log whenever it begins. Any program of the
machine may ask, as any may open /dev/nsm; so requests are answered one after the other, in the
order in which they came, and of too many connections that which said nothing for longest is closed.
"""

import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from socket import socket
from typing import Final, TypeVar

import trio

from vsockproxy.attestation.nsm_messages import MAX_RANDOM_BYTES, MAX_REQUEST_BYTES
from vsockproxy.attestation.software_memory import MAX_MEMORY_BYTES, SoftwareMemory
from vsockproxy.attestation.software_nsm import SoftwareNsm
from vsockproxy.attestation.software_pki import read_root
from vsockproxy.control.logs import EventLog
from vsockproxy.control.service_process import ServiceProcess
from vsockproxy.passed_memory import read_memory
from vsockproxy.services.accepting import accept_connections
from vsockproxy.software_nsm_keys import make_keys

__all__ = ("CONNECTIONS_AT_ONCE", "QUIET_SECONDS", "ModuleServer", "serve_software_nsm")

_Result = TypeVar("_Result")

CONNECTIONS_AT_ONCE: Final = 128

QUIET_SECONDS: Final = 10.0
"""How long a connection may say nothing, or not take its response."""

WARNING: Final = (
    "attestation.device is software: this is for development and tests, documents of this enclave "
    "prove nothing, and their root is not AWS's"
)


async def serve_software_nsm(process: ServiceProcess) -> None:
    """Serve until cancelled."""
    assert process.memory is not None  # the supervisor made it
    memory = process.memory
    saved = SoftwareMemory.decode(read_memory(memory, MAX_MEMORY_BYTES))
    module = SoftwareNsm(read_root(saved.root), make_keys(), registers=saved.registers)

    def save() -> None:
        os.pwrite(memory, SoftwareMemory(saved.root, module.registers).encode(), 0)

    server = ModuleServer(module, process.log, save)
    listener = next(sock for summary, sock in process.listeners if summary.kind == "nsm")
    process.log.warning("software_nsm", text=WARNING)
    await server.serve(listener)


class ModuleServer:
    """Answers requests of any number of programs with one module.

    Args:
        module: answers them.
        log: gets a line when accepting has to rest.
        save: keeps the module's registers; called before a response that changed them leaves.
    """

    def __init__(self, module: SoftwareNsm, log: EventLog, save: Callable[[], None]) -> None:
        self._module = module
        self._log = log
        self._save = save
        self._turn = trio.Lock()  # whose waiters are in order
        self._quiet: dict[trio.CancelScope, None] = {}
        """The connections that have nothing to do, the quietest first."""

    async def serve(self, listener: socket) -> None:
        """Serve until cancelled.

        Args:
            listener: of packets, non-blocking and listening; whoever made it closes it.
        """
        await accept_connections(
            listener,
            self._serve_one,
            self._log,
            at_once=CONNECTIONS_AT_ONCE,
            make_room=self._close_the_quietest,
        )

    def _close_the_quietest(self) -> None:
        if self._quiet:  # otherwise all have something to do, and one is done soon
            next(iter(self._quiet)).cancel()

    async def _serve_one(self, connection: trio.socket.SocketType) -> None:
        with connection, suppress(OSError):  # the program has gone
            while request := await self._while_quiet(connection.recv(MAX_REQUEST_BYTES + 1)):
                response = await self._answer(request)
                if not await self._while_quiet(connection.send(response)):
                    return

    async def _while_quiet(self, waiting: Awaitable[_Result]) -> _Result | None:
        """Wait for the program, and for no more than `QUIET_SECONDS`."""
        with trio.move_on_after(QUIET_SECONDS) as scope:
            self._quiet[scope] = None
            try:
                return await waiting
            finally:
                self._quiet.pop(scope, None)
        return None

    async def _answer(self, request: bytes) -> bytes:
        async with self._turn:
            before = self._module.registers
            random = secrets.token_bytes(MAX_RANDOM_BYTES)
            response = self._module.answer(request, datetime.now(UTC), random)
            if self._module.registers != before:
                self._save()
            return response
