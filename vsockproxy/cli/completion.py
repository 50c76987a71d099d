"""`vsockproxy completion`: what a shell needs to complete our command line."""

from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

__all__ = ("command",)

PROGRAM: Final = "vsockproxy"
SHELLS: Final = ("bash", "zsh", "fish")

VARIABLE: Final = "_VSOCKPROXY_COMPLETE"
"""With it in the environment, click completes instead of running (click.Command.main)."""


HOW: Final = """\b
bash:  vsockproxy completion bash > /etc/bash_completion.d/vsockproxy
zsh:   vsockproxy completion zsh > "${fpath[1]}/_vsockproxy"
fish:  vsockproxy completion fish > ~/.config/fish/completions/vsockproxy.fish

Or, for one bash: eval "$(vsockproxy completion bash)"
"""


@click.command(name="completion", epilog=HOW)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print what lets SHELL complete commands, options and files of vsockproxy.

    Needs bash 4.4 or later, any zsh, any fish.
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # click has all of SHELLS
    completion = completion_class(context.find_root().command, {}, PROGRAM, VARIABLE)
    # Not its own `source`, which starts a bash to ask it for its version.
    click.echo(ShellComplete.source(completion))
