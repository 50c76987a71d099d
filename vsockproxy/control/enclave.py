"""The enclave's supervisor on trio: its workers accept connections, and the command runs."""

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from vsockproxy.config.model import Clock
from vsockproxy.control.clock import ClockKeeper, Measure, SystemClock, ask_parent
from vsockproxy.control.clock_decision import Sample
from vsockproxy.control.command import UserCommand, run_command, wait_for_ending_signal
from vsockproxy.control.command_output import CommandOutput, open_output
from vsockproxy.control.commands import PlannedCommand, run_commands
from vsockproxy.control.executed_command import CommandLauncher, ReceiveLabelled
from vsockproxy.control.log_shipping import LogShipper, through_workers
from vsockproxy.control.logs import REST_SECONDS
from vsockproxy.control.services import Service, announce_ready, supervision
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.log import Log
from vsockproxy.processes import SIGNAL_BASE
from vsockproxy.protocols import clock_stream
from vsockproxy.signals import SignalDescriptor

__all__ = ("ClockSource", "EnclavePlan", "Shipping", "serve_enclave")


@dataclass(frozen=True, slots=True)
class Shipping:
    """How the log reaches the parent.

    Args:
        most_bytes: what is kept while the parent does not take it.
        captures: whether the stdout and stderr of commands go with our own lines.
    """

    most_bytes: int
    captures: bool


@dataclass(frozen=True, slots=True)
class ClockSource:
    """Where the time comes from.

    Args:
        settings: the section of the file.
        system_clock: the machine's clock.
        look: looks at another clock of this machine, and may block; None to ask the parent.
    """

    settings: Clock
    system_clock: SystemClock
    look: Callable[[], Sequence[Sample]] | None = None


@dataclass(frozen=True, slots=True)
class EnclavePlan:
    """What the enclave's side is to do.

    Args:
        service: its workers and listeners.
        command: the user's command, which has our terminal; None for none.
        commands: several, in its place; without any, we run until a signal.
        left_out: what the file wants and cannot be had here, a log line for each.
        note: what this kind of start does not do, for one log line; None if it does all.
        shipping: how the log reaches the parent; None if it does not.
        clock: how the machine's clock is set; None if it is left alone.
    """

    service: Service
    command: UserCommand | None = None
    commands: Sequence[PlannedCommand] = ()
    left_out: Sequence[str] = ()
    note: str | None = None
    shipping: Shipping | None = None
    clock: ClockSource | None = None


def serve_enclave(plan: EnclavePlan, signals: SignalDescriptor) -> int:
    """Run the workers, and the commands as soon as they serve; the exit code.

    Args:
        plan: what to do.
        signals: the signals of this process.
    """
    return trio.run(_serve_enclave, plan, signals)


async def _serve_enclave(plan: EnclavePlan, signals: SignalDescriptor) -> int:
    shipper = None
    service = plan.service
    if plan.shipping is not None:
        shipper = LogShipper(plan.shipping.most_bytes)
        service = replace(service, tap=shipper.receive_own)
    async with (
        supervision(service, passes_listeners=True) as (supervisor, log),
        trio.open_nursery() as nursery,
    ):
        clock = _clock_keeper(plan.clock, supervisor, log)
        run = partial(_run, plan, supervisor, log, signals, clock)
        if clock is not None:
            nursery.start_soon(clock.keep)
        if plan.shipping is None or shipper is None:
            status = await run(None, None)
        else:
            status = await _ship(run, plan.command, plan.shipping, shipper, supervisor, log)
        if plan.command is None and not plan.commands:
            await _drain(supervisor, signals, log)
        nursery.cancel_scope.cancel()
    return status


def _clock_keeper(
    source: ClockSource | None, supervisor: Supervisor, log: Log
) -> ClockKeeper | None:
    if source is None:
        return None
    clock = source.system_clock
    measure: Measure
    if source.look is not None:
        measure = partial(trio.to_thread.run_sync, source.look)
    else:
        connect = through_workers(supervisor, clock_stream.SERVICE)
        measure = partial(ask_parent, connect, clock.now_ns)
    return ClockKeeper(source.settings, measure, clock, log)


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


async def _ship(
    run: Callable[[CommandOutput | None, ReceiveLabelled | None], Awaitable[int]],
    command: UserCommand | None,
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
        if shipping.captures and command is not None:
            async with open_output(shipper.receive, command.owner, log) as output:
                status = await run(output, None)
            if output.wait_status is not None and os.WIFSIGNALED(output.wait_status):
                ended_by = os.WTERMSIG(output.wait_status)
        else:
            status = await run(None, shipper.receive if shipping.captures else None)
        await trio.sleep(2 * REST_SECONDS)  # what workers said last may still gather in their pipes
        await shipper.end(status, ended_by, trio.current_time() - began)
        nursery.cancel_scope.cancel()
    return status


async def _run(
    plan: EnclavePlan,
    supervisor: Supervisor,
    log: Log,
    signals: SignalDescriptor,
    clock: ClockKeeper | None,
    output: CommandOutput | None,
    receive: ReceiveLabelled | None,
) -> int:
    if plan.note is not None:
        log.info("left_out", text=plan.note)
    for text in plan.left_out:
        log.warning("left_out", text=text)
    ended_by: int | None = None
    async with trio.open_nursery() as nursery:

        async def watch_signals() -> None:
            nonlocal ended_by
            ended_by = await wait_for_ending_signal(signals)
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch_signals)
        await announce_ready(supervisor, plan.service.listeners, log)
        if clock is not None:
            await clock.start()
        if plan.command is not None or plan.commands:
            for companion in plan.service.companions:
                await companion.ready(log)
            nursery.cancel_scope.cancel()
    if ended_by is not None:
        log.info("stopping", signal=signal.Signals(ended_by).name)
        return 0 if plan.command is None else SIGNAL_BASE + ended_by
    if plan.command is not None:
        return await run_command(plan.command, signals=signals, log=log, output=output)
    async with trio.open_nursery() as nursery:  # without any command, only a signal comes here
        launcher = CommandLauncher(nursery, log, receive)
        return await run_commands(plan.commands, launch=launcher.launch, signals=signals, log=log)
