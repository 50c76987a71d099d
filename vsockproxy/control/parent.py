"""The parent's supervisor on trio: it accepts connections, and workers serve them."""

import signal
from collections.abc import Callable
from functools import partial

import trio

from vsockproxy.control.accepting import Assignment, accept_connections
from vsockproxy.control.services import Service, announce_ready, supervision

__all__ = ("serve_parent",)


def serve_parent(service: Service, may_connect: Callable[[int], bool]) -> int:
    """Accept connections for the workers until SIGTERM or SIGINT; the exit code."""
    return trio.run(_serve_parent, service, may_connect)


async def _serve_parent(service: Service, may_connect: Callable[[int], bool]) -> int:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with (
            supervision(service, passes_listeners=False) as (supervisor, log),
            trio.open_nursery() as nursery,
        ):
            assignment = Assignment(supervisor.workers)
            for named in service.listeners:
                accept = partial(
                    accept_connections,
                    named.listener,
                    named.name,
                    supervisor=supervisor,
                    assignment=assignment,
                    may_connect=may_connect,
                    log=log,
                )
                nursery.start_soon(accept)
            nursery.start_soon(announce_ready, service, supervisor, log)
            number = await anext(signals)
            log.info("stopping", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()
    return 0
