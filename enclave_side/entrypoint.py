"""The enclave's side as a whole: machine set-up, listeners, workers, the user's command.

As PID 1, or in the sandbox, it is a process of its own below `enclave_side.init`:

    python -m enclave_side.entrypoint DOCUMENT-DESCRIPTOR WORKER-MODULE FILES [COMMAND ARG...]

FILES is `own`, or `shared` where they are another machine's, as in the sandbox.
"""

import os
import sys
from collections import ChainMap
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from enclave_side.boot import Ground, boot
from enclave_side.commands import FencedCommand, FencedCommands, TwoCommandsError, fence_commands
from enclave_side.entropy import EntropyError
from enclave_side.fence import FenceError
from enclave_side.heartbeat import HeartbeatError
from enclave_side.machine import Machine, set_up_machine
from enclave_side.mounts import mount_proc
from enclave_side.namespaces import NamespaceError
from enclave_side.own_services import ServiceUnusable, prepare_own_services
from enclave_side.shim.environment import command_environment
from enclave_side.shim.names.listeners import open_names_listeners
from enclave_side.software_module import SoftwareModuleError
from enclave_side.stream_socket import open_stream_socket
from enclave_side.trust import TrustMissing
from vsockproxy import processes
from vsockproxy.addresses import Endpoint, TcpAddress, UnixAddress
from vsockproxy.config.document import Document
from vsockproxy.config.model import STREAM_SOCKET, Clock, EnclaveConfig
from vsockproxy.control.worker_start import count_workers, start_first_workers
from vsockproxy.listening import Listener, ListenError, open_listener
from vsockproxy.passed_memory import document_descriptor, read_document
from vsockproxy.signals import PASSED_ON, SignalDescriptor
from vsockproxy.worker_messages import ListenerKind

if TYPE_CHECKING:
    from vsockproxy.control.command import UserCommand
    from vsockproxy.control.enclave import ClockSource, Shipping

__all__ = ("WORKER_MODULE", "become_init", "main", "run", "supervisor_command")

WORKER_MODULE: Final = "enclave_side.worker"

_MODULE: Final = "enclave_side.entrypoint"

_CANNOT_START: Final = (
    EntropyError,
    FenceError,
    HeartbeatError,
    ListenError,
    NamespaceError,
    TwoCommandsError,
)

FAILED: Final = 1
"""Exit code where nothing could be started."""

SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH where there is none: the kernel starts PID 1 without."""

HTTP_PROXY_NAME: Final = "shim.http_proxy"
SOCKS5_NAME: Final = "shim.socks5"
STREAMS_NAME: Final = "shim.streams"

OUTPUT_LEFT_OUT: Final = (
    "the parent gets our own log alone: what the command writes stays on this terminal"
)

OWN_FILES: Final = "own"
SHARED_FILES: Final = "shared"


def run(
    document: Document,
    command: Sequence[str],
    *,
    ground: Ground,
    worker_module: str = WORKER_MODULE,
) -> int:
    """Serve until the command ends, or without one until a signal; the exit code.

    Args:
        document: an enclave's configuration.
        command: the user's command; may be empty.
        ground: what we stand on.
        worker_module: the module that is executed as a worker.
    """
    config = document.config
    assert isinstance(config, EnclaveConfig)
    with ExitStack() as stack:
        signals = stack.enter_context(SignalDescriptor(PASSED_ON))
        soft_limit = processes.raise_descriptor_limit()
        try:
            processes.forbid_tracing()
            left_out = boot(config.machine, ground)
            commands = fence_commands(config, command, ground)
            # Workers start up while this process sets the machine up and imports trio.
            workers = count_workers(config.workers)
            first_workers = start_first_workers(worker_module, workers)
            machine = stack.enter_context(
                set_up_machine(
                    document,
                    ground=ground,
                    has_command=commands.are_any,
                )
            )
            listeners = _open_listeners(config, machine, stack)
        except _CANNOT_START as error:
            processes.tell(error)
            return FAILED
        from vsockproxy.control.commands import PlannedCommand
        from vsockproxy.control.enclave import EnclavePlan, serve_enclave
        from vsockproxy.control.services import NamedListener, Service

        environment = command_environment(
            os.environ,
            config.shim,
            http_proxy=_bound_http_proxy(listeners),
            names_are_active=machine.names is not None,
            streams=_stream_socket(listeners),
        )
        try:
            companions = prepare_own_services(
                config,
                machine,
                environment,
                stack,
                has_streams=_stream_socket(listeners) is not None,
            )
        except (ListenError, ServiceUnusable, SoftwareModuleError, TrustMissing) as error:
            processes.tell(error)
            return FAILED

        user_command = partial(
            _user_command, machine=machine, environment=environment, soft_limit=soft_limit
        )
        shipping = _shipping(config, ground, commands, machine)
        service = Service(
            side="enclave",
            document=document,
            worker_module=worker_module,
            listeners=[NamedListener(*listener) for listener in listeners],
            workers=workers,
            first_workers=first_workers,
            log=config.log,
            answer=machine.names.answer if machine.names is not None else None,
            make_sockets=machine.make_sockets,
            companions=companions,
        )
        plan = EnclavePlan(
            service,
            None if commands.single is None else user_command(commands.single),
            [
                PlannedCommand(
                    each.settings.name,
                    user_command(each),
                    each.settings.after,
                    each.settings.ready,
                    each.settings.restart,
                    each.settings.essential,
                )
                for each in commands.several
            ],
            left_out=[*left_out, *machine.left_out, *commands.left_out],
            note=machine.note,
            shipping=shipping,
            clock=_clock_source(config.machine.clock, ground),
        )
        return serve_enclave(plan, signals)


# What these import takes trio along, and is loaded once the workers are on their way.


def _user_command(
    fenced: FencedCommand,
    *,
    machine: Machine,
    environment: MutableMapping[str, str],
    soft_limit: int,
) -> "UserCommand":
    from vsockproxy.control.command import UserCommand

    settings = fenced.settings
    account = fenced.fence.account
    return UserCommand(
        settings.run,
        # The last of these may still learn the region, until the command starts.
        ChainMap(settings.environment, dict(fenced.fence.environment), environment),
        soft_limit,
        fenced.fence.launcher(machine.namespace, settings.working_directory),
        passed=machine.descriptors,
        stop_grace=fenced.stop_grace,
        owner=(account.user, account.group) if account is not None else None,
    )


def _shipping(
    config: EnclaveConfig, ground: Ground, commands: FencedCommands, machine: Machine
) -> "Shipping | None":
    """What of the log goes to the parent; None for nothing."""
    from vsockproxy.control.enclave import Shipping

    has_terminal = processes.has_terminal()
    ships = config.log.to_parent
    if ships is None:
        ships = ground not in ("sandbox", "shared") and not has_terminal
    if not ships:
        return None
    if has_terminal and commands.are_any:
        machine.left_out.append(OUTPUT_LEFT_OUT)
    return Shipping(config.log.buffer, captures=commands.are_any and not has_terminal)


def _clock_source(clock: Clock | None, ground: Ground) -> "ClockSource | None":
    """What the machine's clock is set by, where it is ours to set."""
    if clock is None or ground not in ("init", "taken_over"):
        return None
    from enclave_side.kernel_clock import KernelClock, look_at_ptp
    from vsockproxy.control.enclave import ClockSource

    return ClockSource(clock, KernelClock(), look_at_ptp if clock.source == "ptp" else None)


def supervisor_command(
    document: int,
    command: Sequence[str],
    worker_module: str = WORKER_MODULE,
    *,
    shares_files: bool = False,
) -> list[str]:
    """The command line of this module, for a process below PID 1 that inherits `document`."""
    files = SHARED_FILES if shares_files else OWN_FILES
    return processes.module_command(_MODULE, str(document), worker_module, files, *command)


def become_init(document: Document, command: Sequence[str]) -> NoReturn:
    """Replace this process, PID 1, by the init that starts the supervisor as its child."""
    assert isinstance(document.config, EnclaveConfig)
    at_end = document.config.machine.at_end
    descriptor = document_descriptor(document)
    os.set_inheritable(descriptor, True)
    arguments = processes.module_command(
        "enclave_side.init", at_end, *supervisor_command(descriptor, command)
    )
    os.environ.setdefault("PATH", SEARCH_PATH)
    os.execv(arguments[0], arguments)


_OpenListener = tuple[str, ListenerKind, Listener]


def _open_listeners(
    config: EnclaveConfig, machine: Machine, stack: ExitStack
) -> list[_OpenListener]:
    wanted: list[tuple[str, ListenerKind, Endpoint]] = [
        (f"forwards[{index}].listen", "forward", forward.listen)
        for index, forward in enumerate(config.forwards)
    ]
    if config.shim.http_proxy is not None:
        wanted.append((HTTP_PROXY_NAME, "http_proxy", config.shim.http_proxy))
    if config.shim.socks5 is not None:
        wanted.append((SOCKS5_NAME, "socks5", config.shim.socks5))
    listeners: list[_OpenListener] = []

    def keep(opened: _OpenListener) -> None:
        stack.callback(opened[2].close)
        listeners.append(opened)

    with machine.inside_command_network():
        for name, kind, endpoint in wanted:
            keep((name, kind, open_listener(endpoint)))
    if machine.names is not None:
        for each in open_names_listeners(machine.names):
            keep(each)
    if config.shim.streams is not None:
        try:
            keep((STREAMS_NAME, "streams", open_stream_socket(config.shim.streams)))
        except ListenError as error:
            if config.shim.streams != STREAM_SOCKET:
                raise
            machine.left_out.append(f"the stream socket was left out: {error}")
    return listeners


def _bound_http_proxy(listeners: Sequence[_OpenListener]) -> TcpAddress | None:
    """Where the HTTP proxy listens; the kernel has chosen the port if the file says 0."""
    for name, _, listener in listeners:
        if name == HTTP_PROXY_NAME:
            host, port, *_ = listener.socket.getsockname()
            return TcpAddress(host, port)
    return None


def _stream_socket(listeners: Sequence[_OpenListener]) -> str | None:
    """Where the stream socket listens."""
    for name, _, listener in listeners:
        if name == STREAMS_NAME and isinstance(listener.endpoint, UnixAddress):
            return listener.endpoint.path
    return None


def main() -> None:
    """Run as the process below PID 1."""
    descriptor_text, worker_module, files, *command = sys.argv[1:]
    descriptor = int(descriptor_text)
    document = read_document(descriptor)
    os.close(descriptor)
    ground: Ground = "sandbox"
    if files != SHARED_FILES:
        mount_proc()  # which tells; that it cannot be had is told later
        ground = "init" if processes.is_init_of_machine() else "container"
    sys.exit(run(document, command, ground=ground, worker_module=worker_module))


if __name__ == "__main__":
    main()
