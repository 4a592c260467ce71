"""``planner lint``."""

from __future__ import annotations

from pathlib import Path

import click

from planner.cli.common import echo_json, format_option, profiles_option
from planner.errors import InputError


def _files(profiles: tuple[str, ...], folders: tuple[Path, ...]) -> list[Path]:
    from planner.hardware.loader import ProfileSource

    source = ProfileSource(folders)
    found: list[Path] = []
    for name in profiles:
        path = Path(name)
        if path.is_dir():
            inside = sorted(path.rglob("*.toml"))
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


@click.command("lint")
@click.argument("profiles", nargs=-1, required=True, metavar="PROFILE...")
@profiles_option
@format_option
def command(profiles: tuple[str, ...], folders: tuple[Path, ...], form: str) -> int:
    """Check hardware profiles: files, folders of them, or catalogue names. Exit code 4 if one has a fault.

    Example: planner lint my-node.toml
    """
    from datetime import date

    from planner.hardware.lint import lint
    from planner.hardware.loader import ProfileSource

    folders += tuple(path for path in map(Path, profiles) if path.is_dir())  # whose profiles name one another
    files, source, today = _files(profiles, folders), ProfileSource(folders), date.today()
    faults = [fault for path in files for fault in lint(path, source=source, today=today)]
    if form == "json":
        echo_json({"ok": not faults, "profiles": [str(path) for path in files], "faults": [f.model_dump() for f in faults]})
    else:
        for fault in faults:
            click.echo(str(fault))
        if faults:
            click.echo(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in {len(files)} checked")
        else:
            click.echo(f"ok: {len(files)} {'profile' if len(files) == 1 else 'profiles'} checked")
    return 4 if faults else 0
