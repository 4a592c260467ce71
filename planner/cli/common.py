"""What commands share: options, reading arguments, printing."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.errors import InputError
from planner.quantities import Dimension, parse_quantity

if TYPE_CHECKING:
    from rich.table import Table

format_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="Table for people, JSON for programs."
)


class Quantity(click.ParamType[float]):
    """A number with a unit, from ``low`` to ``high`` in SI; bare numbers are read in ``bare_unit``."""

    def __init__(self, dimension: Dimension, bare_unit: str | None, name: str, low: float, high: float) -> None:
        self.dimension, self.bare_unit, self.name, self.low, self.high = dimension, bare_unit, name, low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse or fail with one line."""
        try:
            number = parse_quantity(value, self.dimension, bare_unit=self.bare_unit)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self.low <= number <= self.high:
            self.fail(f"{value!r} is not from {self.low:g} to {self.high:.9g} {self.dimension}", param, ctx)
        return number


class Range(click.FloatRange):
    """A finite float between limits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse or fail with one line."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


TIME = Quantity("s", "ms", "time", 1e-12, 1e9)
TOKENS = Quantity("tokens", None, "tokens", 1, 16_777_216)


def echo_json(value: Any) -> None:
    """Canonical JSON on stdout."""
    from planner.plans.numbers import canonical, to_json

    click.echo(to_json(canonical(value)), nl=False)


def print_table(table: Table) -> None:
    """A table on stdout: as wide as the terminal, 100 columns where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    Console(width=width, highlight=False, soft_wrap=False, markup=False, emoji=False).print(table)


def new_table(title: str, *columns: str) -> Table:
    """An unboxed table with a title."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def read_plan_argument(name: str) -> tuple[Any, str]:
    """A plan from a file or, for ``-``, from standard input."""
    from planner.documents import MAX_BYTES, decode, read_text
    from planner.plans import read_plan

    if name == "-":
        if sys.stdin is None:
            raise InputError("is closed", where="standard input", mend="name a file")
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"is larger than {MAX_BYTES} bytes", where="standard input", mend="this does not look like a plan")
        return read_plan(decode(data, "standard input"), "standard input"), "standard input"
    return read_plan(read_text(Path(name)), name), name


def hint(text: str) -> None:
    """The next useful command, on stderr."""
    click.echo(f"next: {text}", err=True)


def compact(value: Any) -> str:
    """A value on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
