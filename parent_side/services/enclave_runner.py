"""`vsockproxy run-enclave`: starts an enclave with nitro-cli, follows it, starts it again.

One that is left from before is ended first: nobody follows it, and its resources are needed.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Final

import trio

from parent_side.services.nitro_cli import (
    MAX_OUTPUT_BYTES,
    Described,
    NitroCliError,
    console_command,
    describe_command,
    parse_described,
    parse_started,
    run_command,
    terminate_command,
)
from vsockproxy.addresses import TcpAddress, UnixAddress
from vsockproxy.config.enclave_run import EnclaveRun
from vsockproxy.control.logs import STDERR, open_log
from vsockproxy.control.notify import NotifySettings
from vsockproxy.control.notifying import Notifier
from vsockproxy.log import Log
from vsockproxy.log_lines import LineFormat
from vsockproxy.protocols.errors import HttpResponseError
from vsockproxy.services.http_client import ask

__all__ = ("EnclaveRunner", "restart_delay", "run")

POLL_SECONDS: Final = 1.0
"""How often nitro-cli is asked whether the enclave runs."""

ANSWER_SECONDS: Final = 30.0
START_SECONDS: Final = 300.0
"""Memory is taken in huge pages, and an image may have gigabytes."""

MOST_ERROR_CHARACTERS: Final = 500

FIRST_DELAY_SECONDS: Final = 1.0
MOST_DELAY_SECONDS: Final = 60.0
LONG_LIFE_SECONDS: Final = 120.0
"""The earlier ends of an enclave that has lived so long are forgotten."""

READY_POLL_SECONDS: Final = 0.5
READY_BYTES: Final = 64 * 1024


def restart_delay(quick_ends: int) -> float:
    """Seconds until the next start after so many ends (from 1 on) without a long life between."""
    return min(FIRST_DELAY_SECONDS * 2.0 ** min(quick_ends - 1, 10), MOST_DELAY_SECONDS)


def run(config: EnclaveRun) -> int:
    """Keep the enclave running until SIGTERM or SIGINT, then end it; the exit code."""
    return trio.run(_run, config)


async def _run(config: EnclaveRun) -> int:
    line_format: LineFormat = "text" if os.isatty(STDERR) else "json"
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_log("parent", line_format, "info") as (log, _):
            runner = EnclaveRunner(config, log)
            # Taken out of the environment: nitro-cli and its enclave are not the service.
            notifier = Notifier(
                NotifySettings.take(os.environ, os.getpid()),
                describe=lambda: runner.status,
                is_alive=lambda: True,  # whoever asks is the loop
                log=log,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(notifier.run)
                nursery.start_soon(runner.run)
                nursery.start_soon(_tell_ready, runner, notifier)
                number = await anext(signals)
                log.info("stopping", signal=signal.Signals(number).name)
                runner.status = "ending the enclave"
                await notifier.stopping()
                nursery.cancel_scope.cancel()
    return 0


async def _tell_ready(runner: "EnclaveRunner", notifier: Notifier) -> None:
    await runner.has_started.wait()
    await notifier.ready()


class EnclaveRunner:
    """Keeps one enclave running; cancelling `run` ends the enclave.

    Args:
        config: what to start.
        log: a line for each start and end.
    """

    def __init__(self, config: EnclaveRun, log: Log) -> None:
        self._config = config
        self._log = log
        self.status = "starting"
        """One line for people."""
        self.has_started = trio.Event()
        """Set once the enclave runs."""

    async def run(self) -> None:
        """Start the enclave, and again whenever it has ended, until cancelled."""
        quick_ends = 0
        while True:
            started_at = trio.current_time()
            try:
                await self._wait_for_parent()
                await self._end_leftovers()
                await self._live()
            except NitroCliError as error:
                self._log.error("enclave_failed", enclave=self._config.name, text=str(error))
            if trio.current_time() - started_at >= LONG_LIFE_SECONDS:
                quick_ends = 0
            quick_ends += 1
            delay_seconds = restart_delay(quick_ends)
            self.status = f"{self._config.name} is down, next start in {delay_seconds:g} s"
            self._log.info(
                "enclave_restarts", enclave=self._config.name, restart_after=delay_seconds
            )
            await trio.sleep(delay_seconds)

    async def _wait_for_parent(self) -> None:
        """Wait until the parent says on its admin endpoint that it serves."""
        where = self._config.admin
        if where is None:
            return
        self.status = f"waiting for the parent ({where})"
        has_said = False
        while not await _is_ready(where):
            if not has_said:
                has_said = True
                text = f"the parent does not say that it serves: GET /readyz on {where}"
                self._log.warning("waiting_for_parent", enclave=self._config.name, text=text)
            await trio.sleep(READY_POLL_SECONDS)

    async def _end_leftovers(self) -> None:
        for described in await self._describe():
            if described.name == self._config.name:
                self._log.warning(
                    "enclave_left_over",
                    enclave=described.name,
                    cid=described.cid,
                    text="an enclave of this name runs already, and is ended",
                )
                await self._terminate(described)

    async def _live(self) -> None:
        """Start the enclave and follow it to its end."""
        config = self._config
        # Not to be cancelled: what nitro-cli has started would be nobody's.
        with trio.CancelScope(shield=True):
            output = await _call(run_command(config), START_SECONDS)
            started = parse_started(output)
        try:
            self._log.info("enclave_started", enclave=config.name, cid=started.cid, id=started.id)
            self.status = f"{config.name} runs, CID {started.cid}"
            self.has_started.set()
            async with trio.open_nursery() as nursery:
                if config.debug:
                    nursery.start_soon(self._copy_console, started)
                await self._wait_for_end(started)
                nursery.cancel_scope.cancel()
            self._log.error("enclave_ended", enclave=config.name, cid=started.cid, id=started.id)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._terminate(started)
            raise

    async def _wait_for_end(self, started: Described) -> None:
        failures = 0
        while True:
            await trio.sleep(POLL_SECONDS)
            try:
                found = await self._describe()
            except NitroCliError as error:
                # It may only be busy. An enclave is not given up for that.
                failures += 1
                if failures == 1:
                    self._log.warning("enclave_unseen", enclave=started.name, text=str(error))
                continue
            failures = 0
            if not any(each.id == started.id and each.is_running for each in found):
                return

    async def _copy_console(self, started: Described) -> None:
        command = console_command(self._config, started.id)
        try:
            await trio.run_process(command, check=False, stdin=subprocess.DEVNULL)
        except OSError as error:
            self._log.warning("console_failed", enclave=self._config.name, text=str(error))

    async def _describe(self) -> list[Described]:
        return parse_described(await _call(describe_command(self._config), ANSWER_SECONDS))

    async def _terminate(self, described: Described) -> None:
        try:
            await _call(terminate_command(self._config, described.id), ANSWER_SECONDS)
        except NitroCliError as error:
            self._log.warning("enclave_not_ended", enclave=self._config.name, text=str(error))
        else:
            self._log.info("enclave_terminated", enclave=self._config.name, cid=described.cid)


async def _call(command: Sequence[str], seconds: float) -> bytes:
    """Run nitro-cli; what it wrote to stdout.

    Raises:
        NitroCliError: it could not be run, took too long, or failed.
    """
    name = f"{command[0]} {command[1]}"
    with trio.move_on_after(seconds):
        try:
            done = await trio.run_process(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
            )
        except OSError as error:
            text = os.strerror(error.errno or 0)
            raise NitroCliError(f"{command[0]} cannot be run: {text}") from error
        if done.returncode != 0:
            # The last words are the ones that say what went wrong.
            said = " ".join((done.stdout + b"\n" + done.stderr).decode(errors="replace").split())
            text = said[-MOST_ERROR_CHARACTERS:]
            raise NitroCliError(f"{name} ended with {done.returncode}: {text}")
        if len(done.stdout) > MAX_OUTPUT_BYTES:
            raise NitroCliError(f"{name} wrote {len(done.stdout)} bytes")
        return done.stdout
    raise NitroCliError(f"{name} took more than {seconds:g} s")


async def _is_ready(where: object) -> bool:
    with trio.move_on_after(ANSWER_SECONDS):
        try:
            match where:
                case UnixAddress(path=path):
                    stream: trio.abc.Stream = await trio.open_unix_socket(path)
                case TcpAddress(host=host, port=port):
                    stream = await trio.open_tcp_stream(host, port)
                case _:
                    return False
            answer = await ask(
                stream, "GET", "/readyz", host="localhost", max_body_bytes=READY_BYTES
            )
        except (OSError, HttpResponseError):
            return False
        return answer.status == 200
    return False
