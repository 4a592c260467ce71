"""``planner lint``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.common import echo_json, format_option, profiles_option, verdict
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.hardware.source import ProfileSource


def _files(profiles: tuple[str, ...], folders: tuple[Path, ...]) -> list[Path]:
    from planner.hardware.folders import profiles_below
    from planner.hardware.source import ProfileSource

    source = ProfileSource(folders)
    found: list[Path] = []
    for name in profiles:
        path = Path(name)
        if path.is_dir():
            real = path.resolve()
            inside = sorted(path / file.relative_to(real) for file in profiles_below(path))
            if not inside:
                raise InputError("holds no profile", where=name, mend="name a folder of TOML files")
            found += inside
        elif path.exists():
            found.append(path)
        elif path.suffix == ".toml" or path.name != name:
            raise InputError("no such file", where=name, mend="check the path")
        else:
            found.append(source.resolve(name, "profile"))
    return list(dict.fromkeys(found))


OTHERS = {
    "a workload": "input_tokens",
    "a runtime": "page_tokens",
    "a price basis": "cost_of_capital",
    "a file of constraints": "constraint",
}
"""Documents that are no hardware and have no kind, each by a key that it must have."""


def _other(path: Path, source: ProfileSource) -> str:
    """What a document is that is no hardware profile, or nothing."""
    try:
        table = source.raw(path)
    except InputError:
        return ""
    return "" if "kind" in table else next((what for what, key in OTHERS.items() if key in table), "")


def _unknown(path: Path, source: ProfileSource) -> list[str]:
    """Addresses of the figures that nobody has published, as ``--set`` takes them; writes are not planned for."""
    from planner.hardware import System, unknown_figures
    from planner.hardware.plausible import observations

    try:
        profile = source.read_any(path)
    except InputError:
        return []
    if isinstance(profile, System):
        return [address for address, _ in unknown_figures(profile)]
    return [seen.path for seen in observations(profile) if not seen.figure.known and not seen.path.endswith("write")]


@click.command("lint")
@click.argument("profiles", nargs=-1, required=True, metavar="PROFILE...")
@profiles_option
@format_option
def command(profiles: tuple[str, ...], folders: tuple[Path, ...], form: str) -> int:
    """Check hardware profiles: files, folders of them, or catalogue names. Exit code 4 if one has a fault.

    \b
    Examples:
      planner lint my-node.toml
      planner lint h800-node gb200-nvl72
    """
    from datetime import date

    from planner.hardware.lint import lint
    from planner.hardware.rules import Fault, hidden
    from planner.hardware.source import ProfileSource

    folders += tuple(path for path in map(Path, profiles) if path.is_dir())  # whose profiles name one another
    source, today = ProfileSource(folders), date.today()
    named = _files(profiles, folders)
    others = {path: what for path in named if (what := _other(path, source))}
    files = [path for path in named if path not in others]
    faults: list[Fault] = []
    checked: set[Path] = set()
    for path in files:
        faults += lint(path, source=source, today=today, checked=checked)
        checked.add(path.resolve())
    unknown = {path: found for path in files if (found := _unknown(path, source))}
    notes = [f"{path}: {what}, not checked as hardware" for path, what in others.items()]
    broken = {fault.where for fault in faults}
    for path in (path for path in files if str(path) not in broken):
        names = ", ".join(hidden(source.raw(path), path, source))
        notes += [f"{path}: hides {names} of the catalogue where its folder is searched; allowed"] if names else []
    code = 4 if faults else 0
    with verdict(code):
        if form == "json":
            gaps = {str(path): found for path, found in unknown.items()}
            answer = {"ok": not faults, "profiles": [str(path) for path in files], "faults": [f.model_dump() for f in faults]}
            echo_json(answer | {"unknown": gaps, "notes": notes})
            return code
        for line in (*map(str, faults), *notes):
            click.echo(line)
        gaps_text = _gaps(unknown, len(files))
        if faults:
            click.echo(f"{_count(len(faults), 'fault')} in {len(files)} checked{gaps_text}")
        else:
            click.echo(f"ok: {_count(len(files), 'profile')} checked{gaps_text}")
    return code


def _gaps(unknown: dict[Path, list[str]], files: int) -> str:
    """How many figures are still unknown, by name where one profile was checked."""
    if not unknown:
        return ""
    if files > 1:
        for path, found in unknown.items():
            click.echo(f"{path}: {_count(len(found), 'figure')} unknown: {', '.join(found)}")
    every = [name for found in unknown.values() for name in found]
    names = f": {', '.join(every)}" if files == 1 else ""
    return f", {_count(len(every), 'figure')} unknown{names}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
