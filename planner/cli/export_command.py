"""``planner export``."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.common import echo_json, format_option, hint, read_plan_argument
from planner.errors import InputError, VerificationError

if TYPE_CHECKING:
    from planner.export import Export, ExportFile
    from planner.plans.schema import Plan


@click.command("export")
@click.argument("plan")
@click.option("--to", "target", required=True, help="What to write for: planner list exporters.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for the files; without it they go to stdout.")
@click.option("--values", "values_file", type=click.Path(path_type=Path), help="TOML file with image, model path, namespace, …")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@format_option
def command(plan: str, target: str, output: Path | None, values_file: Path | None, force: bool, form: str) -> None:
    """Write PLAN (a file, or -) as files that an engine or a cluster takes, and say what they could not carry over. A plan whose
    numbers do not follow from its inputs is refused (exit code 4).

    \b
    Examples:
      planner export plan.json --to vllm -o serve/
      planner export plan.json --to lws --values site.toml -o k8s/
    """
    from planner.export import Values, engine_deployment, export_plan, load_values

    loaded, where = read_plan_argument(plan)
    _check(loaded, where)
    values = Values() if values_file is None else load_values(values_file)
    words = ["planner", "export", Path(plan).name, "--to", target]
    if values_file is not None:
        words += ["--values", values_file.name]
    made = export_plan(engine_deployment(loaded, where), target, values, shlex.join(words))
    if output is not None:
        _write(made.files, output, force)
    if form == "json":
        echo_json(_data(made))
    elif output is None:
        _print(made.files)
    else:
        for file in made.files:
            click.echo(output / file.name)
    _tell(made)
    hint(f"planner verify {plan}" if output is not None else f"planner export {plan} --to {target} -o DIR")


def _check(plan: Plan, where: str) -> None:
    """What does not follow from the plan's own inputs is not shipped."""
    from planner.plans import verify_plan

    violations, _ = verify_plan(plan, where)
    if violations:
        rows: list[dict[str, object]] = [{"path": v.path, "equation": v.equation} for v in violations]
        raise VerificationError(f"{where}: violated: {violations[0].equation}: {violations[0].path}; plan again", rows)


def _write(files: tuple[ExportFile, ...], folder: Path, force: bool) -> None:
    from planner.documents import check_target, write_whole

    taken = [file.name for file in files if os.path.lexists(folder / file.name)]
    if taken and not force:
        raise InputError(f"has {', '.join(taken[:4])} already", where=str(folder), mend="name another folder, or add --force")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", where=str(folder), mend="name another folder") from None
    for file in files:
        check_target(folder / file.name, force=True)
    for file in files:
        write_whole(folder / file.name, file.content, force=True)


def _print(files: tuple[ExportFile, ...]) -> None:
    for file in files:
        try:
            text = file.content.decode()
        except UnicodeDecodeError:
            text = f"({len(file.content)} bytes that are no text: give -o DIR)\n"
        click.echo(text if len(files) == 1 else f"==> {file.name} <==\n{text}", nl=False)


def _tell(made: Export) -> None:
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    for value in made.missing:
        click.echo(f"missing: {value.key}: {value.why}; {value.placeholder} stands there", err=True)
    for part in made.not_carried:
        instead = f"; {part.instead}" if part.instead else ""
        click.echo(f"not carried over: {part.what}: {part.why}{instead}", err=True)


def _data(made: Export) -> dict[str, object]:
    return {
        "target": made.target,
        "files": [
            {"name": file.name, "bytes": len(file.content), "sha256": hashlib.sha256(file.content).hexdigest()}
            for file in made.files
        ],
        "not_carried": [{"what": part.what, "why": part.why, "instead": part.instead} for part in made.not_carried],
        "missing": [{"key": value.key, "placeholder": value.placeholder, "why": value.why} for value in made.missing],
        "notes": list(made.notes),
    }
