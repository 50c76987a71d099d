"""A sandbox with an agent in it, and many hosts outside that say who they are."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.program import Program, command_line

HOSTS = tuple(f"127.0.1.{number}" for number in range(1, 101))
"""Addresses of this machine, on each of which one host listens."""


class NoAnswer(Exception):
    """The agent met an error; `symbol` is its name."""

    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)
        self.symbol = symbol


class Machine:
    """A running sandbox.

    Args:
        program: the sandbox, whose command is the agent.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    def ask(self, task: str, *arguments: object) -> Any:
        """Have the agent do something; its answer.

        Raises:
            NoAnswer: it met an error.
        """
        process = self.program.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([task, *arguments]).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"the sandbox ended: {self.program.end()} {self.program.lines}"
        value, symbol = json.loads(line)
        if symbol is not None:
            raise NoAnswer(symbol)
        return value

    def error(self, task: str, *arguments: object) -> str:
        """The symbol of the error that the agent meets; that it meets one is asserted."""
        try:
            value = self.ask(task, *arguments)
        except NoAnswer as error:
            return error.symbol
        raise AssertionError(f"{task} {arguments}: {value!r}, and no error")

    def decision(self, **fields: object) -> dict[str, Any]:
        """The next decision line with these fields."""
        while True:
            line: dict[str, Any] = json.loads(self.program.line_with('"event": "decision"'))
            if fields.items() <= line.items():
                return line

    def kill_worker(self, side: str = "enclave") -> None:
        """Kill a worker, and wait until its supervisor has seen it."""
        (victim, *_) = self.processes(f"{side}_side.worker")
        os.kill(victim, signal.SIGKILL)
        self.program.line_with('"worker_died"')

    def processes(self, module: str) -> list[int]:
        """Process ids of this sandbox that execute a module of ours."""
        found = []
        session = os.getsid(self.program.process.pid)
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                command = (entry / "cmdline").read_bytes()
                is_it = f"\0-m\0{module}\0".encode() in command
                if is_it and os.getsid(int(entry.name)) == session:
                    found.append(int(entry.name))
        return found

    def lose_parent(self) -> None:
        """Have the parent go away for good; what dials it is not answered."""
        for module, number in (
            ("parent_side.service", signal.SIGSTOP),  # it would start another worker
            ("parent_side.worker", signal.SIGKILL),
        ):
            for process in self.processes(module):
                os.kill(process, number)


@contextmanager
def machine(
    directory: Path, parent: Mapping[str, Any], enclave: Mapping[str, Any]
) -> Iterator[Machine]:
    """A sandbox with these files; `listen` and `parent` are added."""
    files = {
        "parent": {"listen": "unix:///unused", **parent},
        "enclave": {"parent": "unix:///unused", "require_tls": False, **enclave},
    }
    options = []
    for side, content in files.items():
        file = directory / f"{side}.yaml"
        file.write_text(json.dumps(content))  # YAML has JSON in it
        options += [f"--config-{side}", str(file)]
    agent = [sys.executable, "-m", "tests.names.agent"]
    command = command_line("sandbox", *options, "--", *agent)
    with Program(command, stdin=subprocess.PIPE) as program:
        yield Machine(program)


@contextmanager
def hosts() -> Iterator[int]:
    """Listens on every address of `HOSTS`, and tells whoever connects which it was; the port."""
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        wake, stop = socket.socketpair()
        stack.callback(wake.close)
        port = 0
        for address in HOSTS:
            listener = stack.enter_context(socket.create_server((address, port), backlog=1024))
            port = listener.getsockname()[1]
            selector.register(listener, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)

        def serve() -> None:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is wake:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    connection, _ = key.fileobj.accept()
                    with connection:
                        connection.sendall(connection.getsockname()[0].encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield port
        finally:
            stop.close()
            thread.join()
