"""What every command says of itself: no option that takes a value goes without unit and example."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from vsockproxy.cli import aws
from vsockproxy.cli.main import main

UNITS_OF_CLICK = {"TEXT", "INTEGER", "FLOAT", "PATH", "INTEGER RANGE", "FLOAT RANGE"}
"""What click writes where an option does not say what it wants; none of them is a unit."""

BIN = Path(sys.executable).parent


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, f"{path} {name}")


COMMANDS = dict([*commands(main, "vsockproxy"), *commands(aws.main, "vsock-proxy")])

VALUES = {
    f"{path} {option.opts[-1]}": (command, option)
    for path, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag and not option.count
}
"""The options that take a value."""


def faults(command: click.Command, option: click.Option) -> list[str]:
    """What the help of an option lacks."""
    record = option.get_help_record(click.Context(command))
    if record is None:
        return ["a help text"]
    left, text = record
    found = []
    metavar = left.rpartition(" ")[2]
    if metavar in UNITS_OF_CLICK or metavar.startswith("-"):
        found.append("a metavar that says what it wants")
    if "[default: " not in text and "required]" not in text:
        found.append("its default (show_default, a text where the value says nothing)")
    names = "|".join(map(re.escape, option.opts))
    if not re.search(rf"Example: (?:{names})[ =]\S", text):
        found.append(f"Example: {option.opts[0]} VALUE")
    return found


@pytest.mark.parametrize("name", VALUES)
def test_an_option_has_its_unit_its_default_and_an_example(name: str) -> None:
    command, option = VALUES[name]
    assert faults(command, option) == []


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_and_each_of_its_options_are_described(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help or option.hidden, option.name
    result = CliRunner().invoke(command, ["--help"], prog_name=path, terminal_width=100)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: {path} ")


GROUPS = [path for path, command in COMMANDS.items() if isinstance(command, click.Group)]


@pytest.mark.parametrize("path", GROUPS)
def test_the_lines_of_a_groups_commands_are_whole(path: str) -> None:
    result = CliRunner().invoke(COMMANDS[path], ["--help"], prog_name=path, terminal_width=80)
    assert "..." not in result.stdout.partition("Commands:")[2]


def test_an_option_without_any_of_it_is_found() -> None:
    option = click.Option(["--size"], type=int)
    assert len(faults(click.Command("c"), option)) == 3


def complete(line: str, *, directory: Path) -> list[str]:
    """What a real bash offers for the last word of `line`."""
    words = line.split(" ")
    script = (
        'eval "$(vsockproxy completion bash)"\n'
        f"COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}')\n"
        f"COMP_CWORD={len(words) - 1}\n"
        '"$(complete -p vsockproxy | sed "s/.*-F \\([^ ]*\\).*/\\1/")" vsockproxy\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=directory,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    assert complete("vsockproxy ex", directory=tmp_path) == ["explain"]
    assert complete("vsockproxy completion ", directory=tmp_path) == ["bash", "zsh", "fish"]
    assert complete("vsockproxy check --str", directory=tmp_path) == ["--strict"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_source_is_clicks_for_our_name_and_starts_no_program(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # where click's own bash would be asked for its version
    result = CliRunner().invoke(main, ["completion", shell])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "_VSOCKPROXY_COMPLETE" in result.stdout
    assert f"{shell}_complete" in result.stdout
