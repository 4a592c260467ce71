"""``planner completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from planner.cli.completion import register


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script for SHELL that completes commands, options and names of the catalogue.

    \b
    Examples:
      planner completion bash > ~/.local/share/bash-completion/completions/planner
      planner completion zsh > ~/.zfunc/_planner
      planner completion fish > ~/.config/fish/completions/planner.fish
    """
    register()
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(click.Command("planner"), {}, "planner", "_PLANNER_COMPLETE").source(), nl=False)
