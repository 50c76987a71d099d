"""The enclave's supervisor on trio: its workers accept connections, and the command runs."""

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from vsockproxy.control.command import UserCommand, run_command, wait_for_ending_signal
from vsockproxy.control.command_output import CommandOutput, open_output
from vsockproxy.control.log_shipping import LogShipper, through_workers
from vsockproxy.control.services import Service, announce_ready, supervision
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.log import Log
from vsockproxy.processes import SIGNAL_BASE
from vsockproxy.signals import SignalDescriptor

__all__ = ("Shipping", "serve_enclave")


@dataclass(frozen=True, slots=True)
class Shipping:
    """How the log reaches the parent.

    Args:
        most_bytes: what is kept while the parent does not take it.
        captures: whether a command's stdout and stderr go with our own lines.
        owner: user and group that the command becomes; None if it stays who we are.
    """

    most_bytes: int
    captures: bool
    owner: tuple[int, int] | None


def serve_enclave(
    service: Service,
    command: UserCommand | None,
    *,
    signals: SignalDescriptor,
    left_out: Sequence[str],
    note: str | None,
    shipping: Shipping | None = None,
) -> int:
    """Run the workers, and the command as soon as they serve; the exit code.

    Args:
        service: the enclave's side.
        command: the user's command; None to run until a signal.
        signals: the signals of this process.
        left_out: what the file wants and cannot be had here, a log line for each.
        note: what this kind of start does not do, for one log line; None if it does all.
        shipping: how the log reaches the parent; None if it does not.
    """
    return trio.run(_serve_enclave, service, command, signals, left_out, note, shipping)


async def _serve_enclave(
    service: Service,
    command: UserCommand | None,
    signals: SignalDescriptor,
    left_out: Sequence[str],
    note: str | None,
    shipping: Shipping | None,
) -> int:
    shipper = None
    if shipping is not None:
        shipper = LogShipper(shipping.most_bytes)
        service = replace(service, tap=shipper.receive_own)
    async with supervision(service, passes_listeners=True) as (supervisor, log):
        run = partial(_run, service, supervisor, log, command, signals, left_out, note)
        if shipping is None or shipper is None:
            status = await run(None)
        else:
            status = await _ship(run, shipping, shipper, supervisor, log)
        if command is None:
            await _drain(service, supervisor, signals, log)
        return status


async def _drain(
    service: Service, supervisor: Supervisor, signals: SignalDescriptor, log: Log
) -> None:
    """Let open streams end, then cut what is left; another signal cuts at once."""
    for named in service.listeners:
        named.listener.close()
    supervisor.stop()
    async with trio.open_nursery() as nursery:

        async def cut_when_asked() -> None:
            number = await wait_for_ending_signal(signals)
            log.warning("cutting", signal=signal.Signals(number).name)
            supervisor.stop(0)

        nursery.start_soon(cut_when_asked)
        await supervisor.has_ended.wait()
        nursery.cancel_scope.cancel()


async def _ship(
    run: Callable[[CommandOutput | None], Awaitable[int]],
    shipping: Shipping,
    shipper: LogShipper,
    supervisor: Supervisor,
    log: Log,
) -> int:
    """Run, and bring the log to the parent; at the end, wait a little until it is there."""
    began = trio.current_time()
    ended_by = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shipper.run, through_workers(supervisor), log)
        if shipping.captures:
            async with open_output(shipper.receive, shipping.owner, log) as output:
                status = await run(output)
            if output.wait_status is not None and os.WIFSIGNALED(output.wait_status):
                ended_by = os.WTERMSIG(output.wait_status)
        else:
            status = await run(None)
        await shipper.end(status, ended_by, trio.current_time() - began)
        nursery.cancel_scope.cancel()
    return status


async def _run(
    service: Service,
    supervisor: Supervisor,
    log: Log,
    command: UserCommand | None,
    signals: SignalDescriptor,
    left_out: Sequence[str],
    note: str | None,
    output: CommandOutput | None,
) -> int:
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
        return 0 if command is None else SIGNAL_BASE + ended_by
    assert command is not None  # without one, only a signal ends the nursery
    return await run_command(command, signals=signals, log=log, output=output)
