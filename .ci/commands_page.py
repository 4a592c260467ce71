"""docs/commands.md: the help of every command and of those below it, and the catalogues' lists."""

import io
import os
import sys
from contextlib import redirect_stdout
from importlib import import_module

import click

os.environ["COLUMNS"] = "110"
main = import_module("planner.cli.main")
LISTS = ("list models", "list workloads")


def said(*arguments: str) -> str:
    """What a command prints."""
    with redirect_stdout(io.StringIO()) as out:
        try:
            main.main(list(arguments))
        except SystemExit as end:
            assert not end.code, f"planner {' '.join(arguments)} exits with {end.code}"
    lines = "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
    return f"```text\n$ planner {' '.join(arguments)}\n{lines}```\n"


def below(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The command and all below it."""
    context = click.Context(command)
    names = command.list_commands(context) if isinstance(command, click.Group) else []
    found = [path]
    for name in names:
        child = command.get_command(context, name)
        assert child is not None, f"{path} {name}"
        found += below(child, (*path, name))
    return found


def page() -> str:
    """The whole page."""
    parts = ["# Every command\n\nGenerated from the commands' own help. [The terminal](terminal.md) has what they share.\n"]
    for path in below(main.group, ()):
        parts.append(f"\n## planner {' '.join(path)}\n".replace("planner \n", "planner\n") + f"\n{said(*path, '--help')}")
    parts.append("\n## What can be named\n" + "".join(f"\n{said(*line.split())}" for line in LISTS))
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
