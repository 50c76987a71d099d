"""The command listens on every port that the allowlist names, and fetches by names meanwhile."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.sandbox.clients.client import Places
from tests.sandbox.clients.table import CLIENTS
from tests.sandbox.destinations import Destination, write_files
from tests.sandbox.sandboxes import run_sandbox
from tests.sandbox.ways import Way

FETCHING = ("curl", "static musl", "psql")
"""Programs that fetch from ports 443, 80 and 5432 of other hosts."""


def test_the_command_serves_the_ports_from_which_it_fetches(
    namespaces: None, destinations: Sequence[Destination], places: Places, tmp_path: Path
) -> None:
    del namespaces
    ports = sorted({each.port for each in destinations})
    assert {443, 80, 5432} <= set(ports)
    clients = [CLIENTS[name] for name in FETCHING]
    lines = []
    for client in clients:
        client.need(Way.NAMES)
        variables = client.environment(Way.NAMES, places)
        assigned = (f"{name}={value}" for name, value in variables.items())
        lines.append(shlex.join(["env", *assigned, *client.words(Way.NAMES, places)]))
    serving = (sys.executable, "-m", "tests.sandbox.serving", *map(str, ports))
    done = run_sandbox(
        write_files(tmp_path, destinations, Way.NAMES),
        [*serving, "--", "sh", "-ec", "\n".join(lines)],
    )
    fetched = "".join(client.expected(Way.NAMES, places) for client in clients)
    assert (done.status, done.stdout) == (0, f"served {' '.join(map(str, ports))}\n{fetched}")
    assert done.stderr == ""  # where a refusal or an error of ours would stand
