"""What commands share: options, reading arguments, printing."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.terminal import console, terminal
from planner.errors import InputError, ReaderGone
from planner.quantities import Dimension, parse_quantity

if TYPE_CHECKING:
    from rich.table import Table

PROFILES_VARIABLE = "PLANNER_PROFILES"
"""Environment variable with folders of hardware profiles."""

format_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="Table for people, JSON for programs."
)


def profile_folders(given: tuple[Path, ...]) -> tuple[Path, ...]:
    """The folders that are searched before the catalogue: those given, then those of ``PLANNER_PROFILES`` (split as the
    platform splits PATH), then ``profiles`` in planner's configuration folder if there is one."""
    named = []
    for folder in (Path(name) for name in os.environ.get(PROFILES_VARIABLE, "").split(os.pathsep) if name):
        if folder.is_dir():
            named.append(folder)
        else:
            what = "is not a folder and is passed over; correct the variable"
            click.echo(f"planner: {PROFILES_VARIABLE}: {folder}: {what}", err=True)
    own = Path(click.get_app_dir("planner")) / "profiles"
    return (*given, *named, *([own] if own.is_dir() else []))


def say_file(name: str, kind: str, folders: tuple[Path, ...], *, always: bool = False) -> None:
    """On stderr, which file a name of hardware is read from: where that hides one of the catalogue, or ``always``."""
    from planner.hardware.loader import find_profile, hides

    try:
        path = find_profile(name, kind, folders=folders)
    except InputError:
        return  # who loads it says so
    if always or hides(path, name, kind):
        click.echo(f"{name.partition(':')[0]} read from {path}", err=True)


class Folder(click.ParamType[Path]):
    """The path of a folder; an empty one, as from an unset variable, would mean the current folder."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """A path or fail with one line."""
        if not str(value).strip():
            self.fail("is empty; name a folder, or . for this one", param, ctx)
        return Path(value)


profiles_option = click.option(
    "--profiles",
    "folders",
    multiple=True,
    type=Folder(),
    callback=lambda context, parameter, given: profile_folders(given),
    help="A folder of hardware profiles, searched first.",
)


class Day(click.ParamType[date]):
    """A date."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """A date or fail with one line."""
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"{str(value)[:64]!r} is no date; write 2026-05-15", param, ctx)


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


class Time(Quantity):
    """A limit on a mean time."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse or fail with one line."""
        if isinstance(value, str) and "@" in value:
            self.fail(f"{value[:64]!r}: percentiles of traffic are not planned for; limits are on means, as 2s", param, ctx)
        return super().convert(value, param, ctx)


TIME = Time("s", "ms", "time", 1e-12, 1e9)
TOKENS = Quantity("tokens", None, "tokens", 1, 16_777_216)


UNBOUNDED = 10_000
"""Columns of a list that nobody looks at in a terminal: programs that read it want whole lines."""
CAPTURED = 100
"""Columns of everything else that nobody looks at in a terminal."""


def echo_json(value: Any) -> None:
    """Canonical JSON on stdout."""
    from planner.plans.numbers import canonical, to_json

    click.echo(to_json(canonical(value)), nl=False)


def terminal_width(otherwise: int = CAPTURED) -> int:
    """Columns of the terminal, or what ``COLUMNS`` says; ``otherwise`` where there is neither."""
    asked = os.environ.get("COLUMNS", "")
    if re.fullmatch(r"[1-9][0-9]{0,4}", asked):
        return int(asked)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else otherwise


def print_table(table: Table, width: int | None = None) -> None:
    """A table on stdout, as wide as ``terminal_width`` says, or ``width``; no line ends in blanks."""
    screen = console(sys.stdout, width or terminal_width())
    with screen.capture() as drawn:
        screen.print(table)
    click.echo("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()), nl=False, color=True)


def say(text: str) -> None:
    """A sentence on stdout, wrapped with a hanging indent at 100 columns or the terminal's width if that is less."""
    import textwrap

    width = min(terminal_width(), CAPTURED)
    lines = textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    click.echo(lines + "\n" * (len(text) - len(text.rstrip("\n"))))


def new_table(title: str, *columns: str) -> Table:
    """An unboxed table with a title."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def number(value: float | None) -> str:
    """Three or four significant digits without an exponent where that is readable."""
    if value is None:
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e12 else f"{value:.3g}"


def fit_columns(rows: list[list[str]], columns: dict[str, int], width: int) -> tuple[list[str], list[list[str]]]:
    """The columns that fit ``width``, and the rows cut to them, one line each.

    ``columns``: name to the least width that is of use. Cells that are cut end in an ellipsis; columns give way from the last,
    first in width and then altogether; the first stays whole.
    """
    width -= 2  # the table's own margin
    names = list(columns)
    natural = [max(len(name), *(len(row[i]) for row in rows)) for i, name in enumerate(names)]
    least = [natural[0], *(min(full, columns[name]) for name, full in zip(names[1:], natural[1:], strict=True))]
    kept = len(names)
    while kept > 1 and sum(least[:kept]) + _GAP * (kept - 1) > width:
        kept -= 1
    spare = width - sum(least[:kept]) - _GAP * (kept - 1)
    sizes = []
    for low, full in zip(least[:kept], natural[:kept], strict=True):
        more = max(0, min(full - low, spare))
        spare -= more
        sizes.append(low + more)
    return names[:kept], [[_cut(cell, size) for cell, size in zip(row, sizes, strict=False)] for row in rows]


_GAP = 3
"""Columns between two cells of ``new_table``."""


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


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


def tell_unverified(plan: Any, where: str, name: str) -> None:
    """On stderr, that a plan which is shown all the same does not follow from its inputs. ``name``: as the command got it."""
    from planner.plans import verify_plan

    try:
        sound = not verify_plan(plan, where)[0]
    except InputError:
        sound = False
    if not sound:
        click.echo(f"note: {where} does not verify: planner verify {name}", err=True)


@contextmanager
def verdict(code: int) -> Iterator[None]:
    """What is printed inside may be cut short by its reader (``planner verify PLAN | head``); the exit code stays ``code``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone(code) from None


def hint(text: str) -> None:
    """The next useful command, on stderr, unless ``--quiet`` says no."""
    if not terminal().quiet:
        click.echo(f"next: {text}", err=True)


def check_output(output: Path | None, force: bool) -> None:
    """``InputError`` for a file to write, if any, that is no ``.toml`` or must not be written."""
    from planner.documents import check_target

    if output is None:
        return
    if output.suffix != ".toml":
        what = "does not end in .toml, by which files are told from names"
        raise InputError(what, where=str(output), mend="choose such a name")
    check_target(output, force=force)


def compact(value: Any) -> str:
    """A value on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def whole_numbers(text: str, option: str, most: int) -> tuple[int, ...]:
    """``"0,1,2"`` as numbers from 0 to ``most``."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or any(not 0 <= value <= most for value in values):
        raise InputError(f"cannot read {text[:64]!r}", where=option, mend=f"write whole numbers from 0 to {most}, as 0,1")
    return values
