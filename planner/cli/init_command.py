"""``planner init``."""

from __future__ import annotations

from pathlib import Path

import click

from planner.cli.common import check_output, hint
from planner.errors import InputError


def _hardware(path: Path, system: Path | None) -> str:
    from datetime import date

    from planner.documents import MAX_YAML_CHARACTERS, parse_yaml, read_text
    from planner.hardware.aiconfigurator import convert
    from planner.hardware.draft import blank, identifier, to_text
    from planner.hardware.source import ProfileSource

    profile_id = identifier(path.stem)
    try:
        ProfileSource(()).resolve(profile_id, "profile")
        profile_id = f"my-{profile_id}"  # no part has two profiles
    except InputError:
        pass
    if system is None:
        return to_text(blank(profile_id, date.today()))
    data = parse_yaml(read_text(system, max_bytes=4 * MAX_YAML_CHARACTERS), str(system))
    return convert(data, file=system.name, profile_id=profile_id, today=date.today())


def _workload(path: Path) -> str:
    from datetime import date

    from planner.hardware.draft import identifier
    from planner.workload.blank import blank_workload

    return blank_workload(identifier(path.stem, but="a-z0-9-"), date.today())


def _inventory(path: Path) -> str:
    from datetime import date

    from planner.hardware.draft import identifier
    from planner.prices.inventory import blank_inventory

    return blank_inventory(identifier(path.stem, but="a-z0-9-"), date.today())


def _sweep(path: Path) -> str:
    from planner.sweep import blank_sweep

    return blank_sweep(path.name)


_TEXTS = {"workload": _workload, "inventory": _inventory, "sweep": _sweep}
_HINTS = {
    "workload": "planner plan MODEL HARDWARE --workload {}",
    "inventory": "planner plan MODEL --inventory {}",
    "sweep": "planner sweep {}",
}


@click.command("init")
@click.argument("kind", type=click.Choice(["hardware", "workload", "inventory", "sweep"]))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--from", "system", type=click.Path(path_type=Path), help="Start from a systems/*.yaml of aiconfigurator (extra yaml)."
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
def command(kind: str, file: Path, system: Path | None, force: bool) -> None:
    """Write a commented FILE to fill in: a machine of your own with its device, a workload, an inventory, or a sweep.

    \b
    Examples:
      planner init hardware my-node.toml
      planner init hardware h100.toml --from aiconfigurator/systems/h100_sxm.yaml
    """
    import shlex

    from planner.documents import write_whole

    if system is not None and kind != "hardware":
        raise click.UsageError("--from goes with hardware")
    check_output(file, force)
    text = _hardware(file, system) if kind == "hardware" else _TEXTS[kind](file)
    write_whole(file, text, force=force)
    if kind == "hardware":
        gaps = sum(" = { unknown = " in line for line in text.splitlines() if not line.startswith("#"))
        click.echo(f"wrote {file}: {gaps} figures are unknown", err=True)
        name = shlex.quote(str(file))
        hint(f"fill them in, then planner lint {name} && planner plan MODEL {name}")
    else:
        click.echo(f"wrote {file}", err=True)
        hint(_HINTS[kind].format(shlex.quote(str(file))))
