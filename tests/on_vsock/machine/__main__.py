"""`python -m tests.on_vsock.machine [OPTION...] -- COMMAND ARG...`: see the package's docstring.

Exit status: the command's; 125 when there is no machine to run it on, with the reason on stderr.
"""

import os
import signal
import sys
import time
from pathlib import Path

import click

from tests.on_vsock.machine import boot, kernel, loopback
from tests.on_vsock.machine.failure import MachineError

NO_MACHINE_STATUS = 125


@click.command
@click.option(
    "--writable",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder that the command may write to; made if it is missing.",
)
@click.option("--memory", default="2G", show_default=True, help="Memory of User Mode Linux.")
@click.option(
    "--limit", default=600, show_default=True, help="Seconds for COMMAND in User Mode Linux."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(command: tuple[str, ...], writable: tuple[Path, ...], memory: str, limit: int) -> None:
    """Run COMMAND on a machine with a real AF_VSOCK loopback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the guest too
    folders = [path.resolve() for path in writable]
    for path in folders:
        path.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "VSOCKPROXY_TEST_VSOCK": "1"}
    if loopback.load_loopback():
        _say(f"{loopback.kernel_name()} of this machine has a vsock loopback")
        sys.stdout.flush()
        os.execvpe(command[0], list(command), environment)
    try:
        started = time.monotonic()
        cache = kernel.default_cache().resolve()
        ready = kernel.prepare(cache)
        _say(f"User Mode Linux ready after {time.monotonic() - started:.1f} s")
        job = boot.Job(
            command=command,
            checkout=Path.cwd(),
            writable=folders,
            environment={
                **environment,
                "HOME": "/tmp/home",
                "TMPDIR": "/tmp",
                "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
            },
            memory=memory,
            limit_seconds=limit,
        )
        status = boot.run(ready, job, cache)
    except MachineError as error:
        _say(f"failed: {error}")
        sys.exit(NO_MACHINE_STATUS)
    _say(f"User Mode Linux took {time.monotonic() - started:.1f} s in all")
    sys.exit(status)


def _say(text: str) -> None:
    print(f"vsock machine: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
