"""The parent's side as a whole: listeners and workers, until it is told to stop.

The sandbox has it in a process of its own, which ends with the sandbox:

    python -m parent_side.service DOCUMENT-DESCRIPTOR WORKER-MODULE STARTER-PID DIRECTORY
"""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final

from vsockproxy import processes
from vsockproxy.addresses import UnixAddress
from vsockproxy.config.document import Document
from vsockproxy.config.model import ParentConfig
from vsockproxy.control.activation import adopt, match_sockets, take_passed
from vsockproxy.control.listeners import (
    ListenerSet,
    NamedListener,
    WantedListener,
    socket_key,
)
from vsockproxy.control.notify import NotifySettings
from vsockproxy.control.worker_start import count_workers, start_first_workers
from vsockproxy.listening import ListenError, open_listener
from vsockproxy.passed_memory import read_document
from vsockproxy.trusted_roots import trusted_roots_fault
from vsockproxy.upstream_credentials import credentials_fault

__all__ = ("WORKER_MODULE", "main", "run", "serve", "wanted_listeners")

WORKER_MODULE: Final = "parent_side.worker"
SERVICES_MODULE: Final = "parent_side.services.admin"
CREDENTIALS_MODULE: Final = "parent_side.services.credentials"

FAILED: Final = 1
"""Exit code where a listener cannot be bound."""

MAX_DIRECTORY_BYTES: Final = 70
"""A socket's path has 107 bytes (unix(7)); below this stand a random name and the socket's."""

UNUSABLE: Final = 2
"""Exit code where a file that the configuration names cannot be used."""


def wanted_listeners(document: Document) -> list[WantedListener]:
    """What a parent's configuration listens on."""
    config = document.config
    assert isinstance(config, ParentConfig)
    return [
        *((f"listen[{index}]", "link", endpoint) for index, endpoint in enumerate(config.listen)),
        *(
            (f"forwards[{index}].listen", "forward", forward.listen)
            for index, forward in enumerate(config.forwards)
        ),
        *(
            (f"ingress[{index}].listen", "ingress", each.listen)
            for index, each in enumerate(config.ingress)
        ),
    ]


def _services_listeners(config: ParentConfig) -> list[WantedListener]:
    """What the process of services listens on."""
    return [("admin.listen", "admin", config.admin.listen)] if config.admin is not None else []


def _credentials_listeners(
    config: ParentConfig, directory: str | None, stack: ExitStack
) -> list[NamedListener]:
    """The socket of our own process for credentials, where nobody of another user comes to it.

    Raises:
        ListenError: it cannot be bound.
    """
    if config.credentials is None or config.credentials.imds is None:
        return []
    if directory is None:
        directory = _make_private_directory()
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
    listener = open_listener(UnixAddress(os.path.join(directory, "credentials.sock")))
    stack.callback(listener.close)
    return [NamedListener("credentials.imds", "credentials", listener)]


def _make_private_directory() -> str:
    """A directory that only this user may enter; below the unit's, which systemd removes, too.

    Raises:
        ListenError: it cannot be made.
    """
    usual, *_ = os.environ.get("RUNTIME_DIRECTORY", tempfile.gettempdir()).split(":")
    place = "/tmp" if len(os.fsencode(usual)) > MAX_DIRECTORY_BYTES else usual
    try:
        return tempfile.mkdtemp(prefix="vsockproxy-", dir=place)
    except OSError as error:
        what = f"cannot make a directory in {place} for the socket of credentials.imds"
        mend = "write another directory in TMPDIR"
        raise ListenError(f"{what}: {os.strerror(error.errno or 0)}: {mend}") from error


def run(
    document: Document,
    *,
    file: str | None = None,
    is_service: bool = False,
    worker_module: str = WORKER_MODULE,
    directory: str | None = None,
) -> int:
    """Serve what the configuration says until SIGTERM or SIGINT; the exit code.

    Args:
        document: a parent's configuration.
        file: what SIGHUP reads again; None if it is to be as without us.
        is_service: as for `serve`.
        worker_module: the module that is executed as a worker.
        directory: as for `serve`.
    """
    fault = credentials_fault(document) or trusted_roots_fault(document)
    if fault is not None:
        processes.tell(fault)
        return UNUSABLE
    try:
        return serve(
            document,
            wanted_listeners,
            file=file,
            is_service=is_service,
            worker_module=worker_module,
            directory=directory,
        )
    except ListenError as error:
        processes.tell(error)
        return FAILED


def serve(
    document: Document,
    wanted: Callable[[Document], Iterable[WantedListener]],
    *,
    file: str | None = None,
    is_service: bool = False,
    worker_module: str = WORKER_MODULE,
    directory: str | None = None,
) -> int:
    """Serve on the listeners that `wanted` names until SIGTERM or SIGINT; the exit code.

    Args:
        document: a parent's configuration.
        wanted: says which listeners a document wants.
        file: what SIGHUP reads again; None if it is to be as without us.
        is_service: whether what systemd has to say to this process is for us.
        worker_module: the module that is executed as a worker.
        directory: a private one, for the socket of our own process for credentials; None to make
            one and remove it.

    Raises:
        ListenError: a listener cannot be bound, or systemd passed one that is not wanted.
    """
    config = document.config
    assert isinstance(config, ParentConfig)
    processes.raise_descriptor_limit()
    if file is not None:
        # Until the supervisor takes it, and in the workers: `systemctl kill` tells them all.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ExitStack() as stack:
        # First of all: no child may take what systemd says for its own.
        notify = NotifySettings.take(os.environ, os.getpid()) if is_service else NotifySettings()
        passed = take_passed(os.environ, os.getpid()) if is_service else {}
        for_services = _services_listeners(config)
        both = (*wanted(document), *for_services)
        inherited = match_sockets(adopt(passed), [endpoint for _, _, endpoint in both])
        services = ListenerSet(
            {
                key: inherited.pop(key)
                for _, _, endpoint in for_services
                if (key := socket_key(endpoint)) in inherited
            }
        )
        stack.callback(services.close)
        services.apply(services.prepare(for_services))
        listeners = ListenerSet(inherited)
        stack.callback(listeners.close)
        listeners.apply(listeners.prepare(wanted(document)))
        for_credentials = _credentials_listeners(config, directory, stack)
        # Workers start up while this process imports trio.
        workers = count_workers(config.workers)
        first_workers = start_first_workers(worker_module, workers)
        from vsockproxy.control.companion_process import CompanionProcess
        from vsockproxy.control.ingress_relay import IngressRelay
        from vsockproxy.control.parent import ParentService, serve_parent
        from vsockproxy.control.services import Service

        service = Service(
            side="parent",
            document=document,
            worker_module=worker_module,
            listeners=listeners.listeners,
            workers=workers,
            first_workers=first_workers,
            log=config.log,
            router=IngressRelay() if workers > 1 else None,
            services_module=SERVICES_MODULE if services.listeners else None,
            services_listeners=services.listeners,
            named_listeners=for_credentials,
            companions=(
                [CompanionProcess(CREDENTIALS_MODULE, for_credentials)] if for_credentials else ()
            ),
        )
        return serve_parent(service, ParentService(listeners, wanted, file, notify))


def _leave(number: int, _: object) -> None:
    sys.exit(processes.SIGNAL_BASE + number)


def main() -> None:
    """Run beside a sandbox: end when it ends, and remove the directory of its link."""
    descriptor_text, worker_module, starter_text, directory = sys.argv[1:]
    # A background process group that writes to a terminal is stopped by it (stty tostop).
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        # Until the service takes its signals, one has to come through here, or the directory stays.
        signal.signal(signal.SIGTERM, _leave)
        processes.die_with_starter(int(starter_text), signal.SIGTERM)
        descriptor = int(descriptor_text)
        document = read_document(descriptor)
        os.close(descriptor)
        code = run(document, worker_module=worker_module, directory=directory)
    finally:
        # The sandbox removes it too; neither knows which of them is last.
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
