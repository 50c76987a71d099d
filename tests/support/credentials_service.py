"""`vsockproxy credentials` in a process of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.metadata_service import MetadataService
from tests.support.program import Program, command_line


def wait_until_said(program: Program, *texts: str) -> list[str]:
    """Wait until lines with all of `texts` have been written, in any order; those lines."""
    found = []
    for text in texts:
        earlier = next((line for line in program.lines if text in line), None)
        found.append(earlier if earlier is not None else program.line_with(text))
    return found


@contextmanager
def running_credentials(socket: Path, service: MetadataService) -> Iterator[Program]:
    """Run it on a socket, and wait until it has credentials and the region to give."""
    command = command_line(
        "credentials",
        *("--listen", f"unix://{socket}?mode=0660"),
        *("--metadata-address", f"127.0.0.1:{service.port}"),
    )
    with Program(command) as program:
        wait_until_said(program, '"credentials_fetched"', '"region_known"')
        yield program
