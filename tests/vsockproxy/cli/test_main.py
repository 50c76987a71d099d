import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from vsockproxy import __version__
from vsockproxy.cli.main import SUBCOMMANDS, main

RUN = [sys.executable, "-c", "from vsockproxy.cli import main; main(prog_name='vsockproxy')"]


def test_help_names_each_subcommand_in_a_line() -> None:
    result = CliRunner().invoke(main, ["--help"], terminal_width=120)
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    for name, text in SUBCOMMANDS.items():
        assert any(line.startswith(f"{name} ") and line.endswith(text) for line in lines)


def test_the_version_is_the_packages() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"vsockproxy, version {__version__}\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_neither_help_nor_version_imports_a_side_or_a_loop(option: str) -> None:
    code = (
        "import sys\n"
        "from vsockproxy.cli import main\n"
        "try:\n"
        f"    main([{option!r}])\n"
        "finally:\n"
        "    heavy = {'trio', 'uvloop', 'asyncio', 'msgspec', 'yaml', 'enclave_side',"
        " 'parent_side'}\n"
        "    print('imported:', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "imported: []\n"


def test_a_subcommand_is_imported_when_it_is_used() -> None:
    done = subprocess.run(
        [*RUN, "check", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Usage: vsockproxy check [OPTIONS] FILE...")


def test_an_unknown_subcommand_is_an_error_of_use() -> None:
    result = CliRunner().invoke(main, ["chekc"])
    assert result.exit_code == 2
    assert "No such command 'chekc'" in result.stderr


def test_check_is_found_by_its_name() -> None:
    context = click.Context(main)
    assert isinstance(main, click.Group)
    command = main.get_command(context, "check")
    assert command is not None
    assert command.name == "check"
    assert main.list_commands(context) == list(SUBCOMMANDS)


@pytest.mark.parametrize("name", ["parent", "sandbox", "top"])
def test_a_command_that_lacks_its_extra_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules["vsockproxy.cli.main"], "NEEDED", {name: ("os", "no_such_module")}
    )
    arguments = [name, "--", "true"] if name == "sandbox" else [name]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert f"vsockproxy {name} needs no_such_module, which" in done.output
    assert "pip install '.[parent]'" in done.output
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0
