"""What `commands` may not say: a name twice, nobody to wait for, a ring of waiting."""

from collections.abc import Iterator, Sequence

from vsockproxy.config.command_order import find_cycle
from vsockproxy.config.conversion import Found
from vsockproxy.config.errors import Fault
from vsockproxy.config.model import SupervisedCommand

__all__ = ("check_commands",)


def check_commands(sections: Sequence[Found]) -> Iterator[Fault]:
    """Yield every breach, in no particular order."""
    found_commands = [
        (found, found.section) for found in sections if isinstance(found.section, SupervisedCommand)
    ]
    first_paths: dict[str, str] = {}
    for found, command in found_commands:
        if "name" in found.invalid:
            continue
        first = first_paths.setdefault(command.name, found.path)
        if first != found.path:
            what = f"the name {command.name} is taken by {first}"
            yield Fault(f"{found.path}.name", what, "write another name")
    for found, command in found_commands:
        yield from _check_one(found, command, first_paths)
    yield from _check_cycle(found_commands, first_paths)


def _check_one(found: Found, command: SupervisedCommand, names: dict[str, str]) -> Iterator[Fault]:
    if "run" not in found.invalid and not (command.run and command.run[0]):
        what, mend = "there is no program to run", "write the program and its arguments, as a list"
        yield Fault(f"{found.path}.run", what, mend)
    if "after" not in found.invalid:
        for index, name in enumerate(command.after):
            if name not in names:
                mend = f"write one of {', '.join(names)}" if names else "remove it"
                yield Fault(f"{found.path}.after[{index}]", f"there is no command {name}", mend)
    if command.ready == "finished" and command.restart == "always":
        what = "a command that is always started again never finishes"
        mend = "write restart: on-failure, or another ready"
        yield Fault(f"{found.path}.ready", what, mend)


def _check_cycle(
    found_commands: Sequence[tuple[Found, SupervisedCommand]], names: dict[str, str]
) -> Iterator[Fault]:
    waits_for = {
        command.name: command.after
        for found, command in found_commands
        if not found.invalid & {"name", "after"}
    }
    if cycle := find_cycle(waits_for):
        what = f"it waits for itself: {' after '.join(cycle)}"
        yield Fault(f"{names[cycle[0]]}.after", what, "remove one of them from after")
