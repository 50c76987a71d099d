"""The enclave's side as a whole: machine set-up, listeners, workers, the user's command.

As PID 1, or in the sandbox, it is a process of its own below `enclave_side.init`:

    python -m enclave_side.entrypoint DOCUMENT-DESCRIPTOR WORKER-MODULE [COMMAND ARG...]
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, NoReturn

from enclave_side.namespaces import NamespaceError, bring_up_loopback
from enclave_side.shim.environment import STREAMS_SOCKET, command_environment
from vsockproxy import processes
from vsockproxy.addresses import Endpoint, TcpAddress
from vsockproxy.config.document import Document
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.control.worker_start import count_workers, start_first_workers
from vsockproxy.listening import Listener, ListenError, open_listener
from vsockproxy.signals import PASSED_ON, SignalDescriptor
from vsockproxy.worker_messages import (
    MAX_DESCRIPTORS,
    ListenerKind,
    document_descriptor,
    read_document,
)

__all__ = ("WORKER_MODULE", "become_init", "main", "run", "supervisor_command")

WORKER_MODULE: Final = "enclave_side.worker"

_MODULE: Final = "enclave_side.entrypoint"

FAILED: Final = 1
"""Exit code where nothing could be started."""

HTTP_PROXY_NAME: Final = "shim.http_proxy"

LEFT_OUT: Final = (
    "machine set-up was left out, since this is neither PID 1 nor --take-over: "
    "the interface lo is used as it is"
)


def run(
    document: Document,
    command: Sequence[str],
    *,
    takes_over: bool,
    worker_module: str = WORKER_MODULE,
) -> int:
    """Serve until the command ends, or without one until a signal; the exit code.

    Args:
        document: an enclave's configuration.
        command: the user's command; may be empty.
        takes_over: whether this machine is ours to set up. In this version: brings up lo.
        worker_module: the module that is executed as a worker.
    """
    config = document.config
    assert isinstance(config, EnclaveConfig)
    with ExitStack() as stack:
        signals = stack.enter_context(SignalDescriptor(PASSED_ON))
        soft_limit = processes.raise_descriptor_limit()
        try:
            if takes_over:
                bring_up_loopback()
            listeners = _open_listeners(config, stack)
        except (NamespaceError, ListenError) as error:
            processes.tell(error)
            return FAILED
        # Workers start up while this process imports trio.
        workers = count_workers(config.workers)
        first_workers = start_first_workers(worker_module, workers)
        from vsockproxy.control.command import UserCommand
        from vsockproxy.control.enclave import serve_enclave
        from vsockproxy.control.services import NamedListener, Service

        environment = command_environment(
            os.environ,
            config.shim,
            http_proxy=_bound_http_proxy(listeners),
            names_are_active=False,
            has_streams_socket=os.path.exists(STREAMS_SOCKET),
        )
        service = Service(
            side="enclave",
            document=document,
            worker_module=worker_module,
            listeners=[NamedListener(*listener) for listener in listeners],
            workers=workers,
            first_workers=first_workers,
            log=config.log,
        )
        return serve_enclave(
            service,
            UserCommand(command, environment, soft_limit) if command else None,
            signals=signals,
            left_out=None if takes_over else LEFT_OUT,
        )


def supervisor_command(
    document: int, command: Sequence[str], worker_module: str = WORKER_MODULE
) -> list[str]:
    """The command line of this module, for a process below PID 1 that inherits `document`."""
    return processes.module_command(_MODULE, str(document), worker_module, *command)


def become_init(document: Document, command: Sequence[str]) -> NoReturn:
    """Replace this process, PID 1, by the init that starts the supervisor as its child."""
    descriptor = document_descriptor(document)
    os.set_inheritable(descriptor, True)
    arguments = processes.module_command(
        "enclave_side.init", *supervisor_command(descriptor, command)
    )
    os.execv(arguments[0], arguments)


_OpenListener = tuple[str, ListenerKind, Listener]


def _open_listeners(config: EnclaveConfig, stack: ExitStack) -> list[_OpenListener]:
    wanted: list[tuple[str, ListenerKind, Endpoint]] = [
        (f"forwards[{index}].listen", "forward", forward.listen)
        for index, forward in enumerate(config.forwards)
    ]
    if config.shim.http_proxy is not None:
        wanted.append((HTTP_PROXY_NAME, "http_proxy", config.shim.http_proxy))
    if len(wanted) >= MAX_DESCRIPTORS:
        raise ListenError(
            f"{len(wanted)} listeners are too many: at most {MAX_DESCRIPTORS - 1}, with the HTTP "
            "proxy, in this version"
        )
    listeners: list[_OpenListener] = []
    for name, kind, endpoint in wanted:
        listener = open_listener(endpoint)
        stack.callback(listener.close)
        listeners.append((name, kind, listener))
    return listeners


def _bound_http_proxy(listeners: Sequence[_OpenListener]) -> TcpAddress | None:
    """Where the HTTP proxy listens; the kernel has chosen the port if the file says 0."""
    for name, _, listener in listeners:
        if name == HTTP_PROXY_NAME:
            host, port, *_ = listener.socket.getsockname()
            return TcpAddress(host, port)
    return None


def main() -> None:
    """Run as the process below PID 1."""
    descriptor_text, worker_module, *command = sys.argv[1:]
    descriptor = int(descriptor_text)
    document = read_document(descriptor)
    os.close(descriptor)
    sys.exit(run(document, command, takes_over=True, worker_module=worker_module))


if __name__ == "__main__":
    main()
