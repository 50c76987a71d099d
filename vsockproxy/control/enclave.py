"""The enclave's supervisor on trio: its workers accept connections, and the command runs."""

import signal
from collections.abc import Sequence

import trio

from vsockproxy.control.command import UserCommand, run_command, wait_for_ending_signal
from vsockproxy.control.services import Service, announce_ready, supervision
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.log import Log
from vsockproxy.processes import SIGNAL_BASE
from vsockproxy.signals import SignalDescriptor

__all__ = ("serve_enclave",)


def serve_enclave(
    service: Service,
    command: UserCommand | None,
    *,
    signals: SignalDescriptor,
    left_out: Sequence[str],
    note: str | None,
) -> int:
    """Run the workers, and the command as soon as they serve; the exit code.

    Args:
        service: the enclave's side.
        command: the user's command; None to run until a signal.
        signals: the signals of this process.
        left_out: what the file wants and cannot be had here, a log line for each.
        note: what this kind of start does not do, for one log line; None if it does all.
    """
    return trio.run(_serve_enclave, service, command, signals, left_out, note)


async def _serve_enclave(
    service: Service,
    command: UserCommand | None,
    signals: SignalDescriptor,
    left_out: Sequence[str],
    note: str | None,
) -> int:
    async with supervision(service, passes_listeners=True) as (supervisor, log):
        if note is not None:
            log.info("left_out", text=note)
        for text in left_out:
            log.warning("left_out", text=text)
        ended_by: int | None = None
        async with trio.open_nursery() as nursery:

            async def watch_signals() -> None:
                nonlocal ended_by
                ended_by = await wait_for_ending_signal(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch_signals)
            await announce_ready(supervisor, service.listeners, log)
            if command is not None:
                nursery.cancel_scope.cancel()
        if ended_by is not None:
            log.info("stopping", signal=signal.Signals(ended_by).name)
            if command is not None:
                return SIGNAL_BASE + ended_by
            await _drain(supervisor, signals, log)
            return 0
        assert command is not None  # without one, only a signal ends the nursery
        return await run_command(command, signals=signals, log=log)


async def _drain(supervisor: Supervisor, signals: SignalDescriptor, log: Log) -> None:
    """Let open streams end, then cut what is left; another signal cuts at once."""
    supervisor.stop()
    async with trio.open_nursery() as nursery:

        async def cut_when_asked() -> None:
            number = await wait_for_ending_signal(signals)
            log.warning("cutting", signal=signal.Signals(number).name)
            supervisor.stop(0)

        nursery.start_soon(cut_when_asked)
        await supervisor.has_ended.wait()
        nursery.cancel_scope.cancel()
