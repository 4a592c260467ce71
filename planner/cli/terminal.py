"""How much a command says, and to what: ``--quiet``, ``--verbose``, colours and the streams themselves."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

DUMB = ("dumb", "unknown")
"""Values of ``TERM`` that stand for terminals which cannot redraw a line or show colours."""


@dataclass
class Terminal:
    """What the user asked to be told in one run of the command line."""

    quiet: bool = False
    verbose: bool = False
    started: float = field(default_factory=time.monotonic)


def terminal() -> Terminal:
    """That of the command that runs, or a plain one outside of commands."""
    context = click.get_current_context(silent=True)
    return (context and context.find_object(Terminal)) or Terminal()


def _note(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Keep a switch, wherever on the line it stands; for commands that take it as an argument too, as it is kept."""
    asked, name = context.ensure_object(Terminal), str(parameter.name)
    if value and not getattr(asked, name):
        setattr(asked, name, True)
        if asked.quiet and asked.verbose:
            raise click.UsageError("--quiet and --verbose exclude each other", context)
        tell(versions)
    return bool(getattr(asked, name))


def _switches() -> list[click.Option]:
    told: dict[str, Any] = {"is_flag": True, "expose_value": False, "is_eager": True, "callback": _note}
    return [
        click.Option(["--quiet"], help="No progress and no hints.", **told),
        click.Option(["-v", "--verbose"], help="On stderr: versions, inputs, counts, times, causes of errors.", **told),
    ]


def add_switches(command: click.Command) -> None:
    """``--quiet`` and ``--verbose`` for a command and those below it that have none of their own."""
    own = {parameter.name: parameter for parameter in command.params}
    for option in _switches():
        if option.name not in own:
            taken = {name for parameter in command.params for name in parameter.opts}
            option.opts = [name for name in option.opts if name not in taken]
            command.params.append(option)
        elif own[option.name].callback is None:
            own[option.name].callback, own[option.name].is_eager = _note, True
    for below in getattr(command, "commands", {}).values():
        add_switches(below)


def tell(text: str | Callable[[], str]) -> None:
    """A line on stderr that only ``--verbose`` asks for."""
    if terminal().verbose:
        click.echo(f"verbose: {text if isinstance(text, str) else text()}", err=True)


def versions() -> str:
    """What runs here."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from planner.version import CATALOGUE_VERSION, __version__

    found = [f"planner {__version__} (catalogue {CATALOGUE_VERSION})", f"Python {platform.python_version()}"]
    for name in ("numpy", "ortools", "pydantic", "networkx", "click", "rich"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def causes(error: BaseException) -> list[str]:
    """The errors behind one, nearest first, each in one line."""
    found: list[str] = []
    before = error.__cause__ or error.__context__
    while before is not None and len(found) < 8:
        found.append(f"{type(before).__name__}: {' '.join(str(before).split())[:400]}")
        before = before.__cause__ or before.__context__
    return found


def plain() -> bool:
    """Whether the user wants no colours, or the terminal has none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "") in DUMB


def redraws(stream: TextIO) -> bool:
    """Whether a line that was written there can be drawn again."""
    return stream.isatty() and os.environ.get("TERM", "") not in DUMB


def console(stream: TextIO, width: int | None = None) -> Console:
    """A console on a stream: styled where it is a terminal that has colours and the user wants them."""
    from rich.console import Console

    system: Any = "auto" if stream.isatty() and not plain() else None
    return Console(file=stream, width=width, color_system=system, highlight=False, soft_wrap=False, markup=False, emoji=False)


def writable() -> None:
    """Characters that the streams' encoding lacks become question marks in place of a fault."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not str(stream.encoding or "").lower().startswith("utf"):
            reconfigure(errors="replace")
