"""`vsockproxy credentials`: the instance role's credentials and region, behind a unix socket.

A process of its own with a unit of its own, the only one of ours that may reach the metadata
service. Whoever may open the socket has the role, so the socket's mode is its guard.
"""

import os
import signal

import trio

from parent_side.services.instance_metadata import InstanceMetadata
from vsockproxy import processes
from vsockproxy.addresses import TcpAddress, UnixAddress
from vsockproxy.control.logs import STDERR, open_log
from vsockproxy.control.notify import NotifySettings
from vsockproxy.control.notifying import Notifier
from vsockproxy.credentials.endpoints import answer_enclave
from vsockproxy.listening import Listener, ListenError, open_listener
from vsockproxy.log_lines import LineFormat
from vsockproxy.protocols.http_service import ServiceAnswer, ServiceRequest
from vsockproxy.services.credentials_keeper import CredentialsKeeper
from vsockproxy.services.http_server import serve_http

__all__ = ("run",)

FAILED = 1
"""Exit code where the socket cannot be bound."""


def run(listen: UnixAddress, metadata: TcpAddress) -> int:
    """Serve until SIGTERM or SIGINT; the exit code.

    Args:
        listen: the socket.
        metadata: where the instance metadata service is.
    """
    try:
        # Nobody else of this user is to read the credentials out of this process.
        processes.forbid_tracing()
    except (ImportError, MemoryError, OSError) as error:
        # The unit has a user of its own, and its MemoryDenyWriteExecute may be what is in the way.
        processes.tell(f"other processes of this user may read this one's memory: {error}")
    try:
        listener = open_listener(listen)
    except ListenError as error:
        processes.tell(error)
        return FAILED
    try:
        return trio.run(_serve, listener, metadata)
    finally:
        listener.close()


async def _serve(listener: Listener, metadata: TcpAddress) -> int:
    line_format: LineFormat = "text" if os.isatty(STDERR) else "json"
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_log("parent", line_format, "info") as (log, _), trio.open_nursery() as all_:
            service = InstanceMetadata(metadata)
            keeper = CredentialsKeeper(service.fetch_credentials, service.fetch_region, log)

            def answer(request: ServiceRequest) -> ServiceAnswer:
                answered = answer_enclave(request, keeper.holding, keeper.now)
                if answered.status == 503:
                    keeper.hurry()
                return answered

            notifier = Notifier(
                NotifySettings.take(os.environ, os.getpid()),
                describe=lambda: _describe(keeper),
                is_alive=lambda: True,  # whoever asks is the loop
                log=log,
            )
            all_.start_soon(notifier.run)
            all_.start_soon(keeper.run)
            all_.start_soon(serve_http, listener.socket, answer, log)
            log.info("ready", listeners=str(listener.endpoint), metadata=str(metadata))
            await notifier.ready()
            number = await anext(signals)
            log.info("stopping", signal=signal.Signals(number).name)
            await notifier.stopping()
            all_.cancel_scope.cancel()
    return 0


def _describe(keeper: CredentialsKeeper) -> str:
    """What `systemctl status` shows."""
    holding = keeper.holding
    credentials = holding.valid_at(keeper.now)
    if credentials is None:
        return f"no credentials: {holding.trouble or 'none have come yet'}"
    return f"credentials of {credentials.role} in {holding.region or 'a region not known yet'}"
