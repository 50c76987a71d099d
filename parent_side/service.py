"""The parent's side as a whole: listeners and workers, until it is told to stop.

The sandbox has it in a process of its own, which ends with the sandbox:

    python -m parent_side.service DOCUMENT-DESCRIPTOR WORKER-MODULE STARTER-PID DIRECTORY
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Final

from parent_side.upstream_credentials import credentials_fault
from vsockproxy import processes
from vsockproxy.addresses import Endpoint
from vsockproxy.config.document import Document
from vsockproxy.config.model import ParentConfig
from vsockproxy.control.worker_start import count_workers, start_first_workers
from vsockproxy.listening import Listener, ListenError, open_listener
from vsockproxy.worker_messages import ListenerKind, read_document

__all__ = ("WORKER_MODULE", "WantedListener", "main", "run", "serve")

WORKER_MODULE: Final = "parent_side.worker"

FAILED: Final = 1
"""Exit code where a listener cannot be bound."""

UNUSABLE: Final = 2
"""Exit code where a file that the configuration names cannot be used."""

WantedListener = tuple[str, ListenerKind, Endpoint]
"""Its path in the configuration, what it is for, and where it is."""


def run(document: Document, *, worker_module: str = WORKER_MODULE) -> int:
    """Serve what the configuration says until SIGTERM or SIGINT; the exit code.

    Args:
        document: a parent's configuration.
        worker_module: the module that is executed as a worker.
    """
    config = document.config
    assert isinstance(config, ParentConfig)
    if (fault := credentials_fault(document)) is not None:
        processes.tell(fault)
        return UNUSABLE
    wanted: list[WantedListener] = [
        *((f"listen[{index}]", "link", endpoint) for index, endpoint in enumerate(config.listen)),
        *(
            (f"forwards[{index}].listen", "forward", forward.listen)
            for index, forward in enumerate(config.forwards)
        ),
    ]
    try:
        return serve(document, wanted, worker_module=worker_module)
    except ListenError as error:
        processes.tell(error)
        return FAILED


def serve(
    document: Document, wanted: Iterable[WantedListener], *, worker_module: str = WORKER_MODULE
) -> int:
    """Serve on the given listeners until SIGTERM or SIGINT; the exit code.

    Raises:
        ListenError: one of them cannot be bound.
    """
    config = document.config
    assert isinstance(config, ParentConfig)
    processes.raise_descriptor_limit()
    with ExitStack() as stack:
        listeners: list[tuple[str, ListenerKind, Listener]] = []
        for name, kind, endpoint in wanted:
            listener = open_listener(endpoint)
            stack.callback(listener.close)
            listeners.append((name, kind, listener))
        # Workers start up while this process imports trio.
        workers = count_workers(config.workers)
        first_workers = start_first_workers(worker_module, workers)
        from vsockproxy.control.parent import serve_parent
        from vsockproxy.control.services import NamedListener, Service
        from vsockproxy.policy import may_connect

        service = Service(
            side="parent",
            document=document,
            worker_module=worker_module,
            listeners=[NamedListener(*listener) for listener in listeners],
            workers=workers,
            first_workers=first_workers,
            log=config.log,
        )
        return serve_parent(service, partial(may_connect, document))


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
        code = run(document, worker_module=worker_module)
    finally:
        # The sandbox removes it too; neither knows which of them is last.
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
