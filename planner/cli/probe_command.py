"""``planner probe``."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.common import Day, Folder, Quantity, check_output, echo_json, format_option, hint
from planner.cli.progress import working
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.hardware import System
    from planner.probe.measure import Probed
    from planner.probe.spec import Spec

SIZE = Quantity("bytes", "MB", "size", 1e6, 1e15)


@click.command("probe")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the profile to this file, FILE.toml.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--quick", is_flag=True, help="A look in a few seconds, with wider spreads.")
@click.option("--disk", "folder", type=Folder(), help="Folder whose disk is read; the one for temporary files unless given.")
@click.option("--no-disk", is_flag=True, help="Leave the disk out.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Cores to measure, all unless given.")
@click.option("--as-of", type=Day(), help="Date of the figures, today unless given.")
@click.option("--run", "spec", type=click.Path(path_type=Path), metavar="MODEL_SPEC", help="Run this small model as well.")
@click.option(
    "--memory", type=SIZE, help="With --run: so much memory for the model, as 400MB; the planner says what goes to disk."
)
@click.option("--host", type=click.Path(path_type=Path), help="With --run: a profile of an earlier probe, in place of a new one.")
@format_option
def command(
    output: Path | None,
    force: bool,
    quick: bool,
    folder: Path | None,
    no_disk: bool,
    threads: int | None,
    as_of: date | None,
    spec: Path | None,
    memory: float | None,
    host: Path | None,
    form: str,
) -> None:
    """Measure this machine, and write a profile that plans can be made with.

    Memory by threads, products by rows and dtype, the disk by direct reads
    of a scratch file that has no name and so is never left behind; GPUs where
    torch is there. With --run a small mixture of experts decodes in numpy, its
    tensors in memory or on disk, beside what the planner predicts for it.
    Anything else that runs meanwhile is measured too: leave the machine alone.

    \b
    Examples:
      planner probe -o my-host.toml
      planner probe --quick --disk /mnt/fast --format json
      planner probe --threads 1 --run small-moe.toml --memory 400MB
    """
    for option, value in (("--host", host), ("--memory", memory)):
        if value is not None and spec is None:
            raise InputError("goes with --run", where=option, mend="add --run MODEL_SPEC, or leave it out")
    if host is not None and output is not None:
        raise InputError("nothing new is measured with --host", where="-o", mend="leave one of them out")
    if no_disk and folder is not None:
        raise InputError("contradicts --disk", where="--no-disk", mend="leave one of them out")
    check_output(output, force)
    if output is not None and not os.access(output.parent, os.W_OK):
        raise InputError("cannot be written: its folder is read-only", where=str(output)[:200], mend="choose another folder")
    from planner.probe.disk import default_folder
    from planner.probe.spec import read_specs

    specs = read_specs(spec) if spec is not None else ()
    disk = None if no_disk else folder or default_folder()
    if disk is None and (memory is not None or any(one.disk_bytes for one in specs)):
        raise InputError("some of the model goes to disk", where="--no-disk", mend="leave it out")
    given = _host(host, specs) if host is not None else None
    try:
        _probe(output, force, quick, disk, threads, as_of or date.today(), specs, memory, given, form)
    except MemoryError:
        raise InputError("memory ran out", where="probe", mend="raise the limit on it, or probe with --quick") from None
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        raise InputError("no more threads can be started", where="probe", mend="raise the limit on processes") from None


def _host(path: Path, specs: tuple[Spec, ...]) -> System:
    """The profile of an earlier probe; ``InputError`` where it is not of a processor, or lacks the disk that a model lies on."""
    from planner.hardware import load_hardware

    where, mend = str(path)[:200], "name a profile that planner probe wrote"
    if not path.is_file():
        raise InputError("no such file", where=where, mend=mend)
    found = load_hardware(str(path)).system
    if found.devices != 1 or "fp32" not in found.device.compute or found.tiers[0].kind != "ddr":
        raise InputError("is not of one processor with its memory, which the model runs on", where=where, mend=mend)
    if any(one.disk_bytes for one in specs) and not any(tier.role == "disk" for tier in found.tiers):
        raise InputError("has no disk, on which some of the model lies", where=where, mend="probe it without --no-disk")
    return found


def _probe(
    output: Path | None,
    force: bool,
    quick: bool,
    disk: Path | None,
    threads: int | None,
    day: date,
    specs: tuple[Spec, ...],
    memory: float | None,
    given: System | None,
    form: str,
) -> None:
    from planner.cli.probe_view import print_machine, print_runs
    from planner.documents import write_whole
    from planner.hardware.draft import identifier
    from planner.hardware.writer import to_toml
    from planner.probe.decoder import check_fits
    from planner.probe.limits import threads_of
    from planner.probe.measure import FULL, QUICK, probe
    from planner.probe.place import placed
    from planner.probe.results import result_of
    from planner.probe.study import compare, fit_here, measure

    found: Probed | None = None
    count = threads_of(threads)
    for one in specs if memory is None else ():
        check_fits(one, disk)
    notes: list[str] = []
    with working("probe") as work:
        if given is None:
            found = probe(QUICK if quick else FULL, disk, threads, work.stage)
            notes += found.notes
        name = identifier(output.stem, but="a-z0-9-") if output is not None else "my-host"
        if output is not None and found is not None:
            comments = "".join(f"# {note}\n" for note in notes)
            write_whole(output, comments + to_toml(found.profile(name, day)), force=force)
        system = given if found is None else found.host(name, day)
        assert system is not None
        rows, fitted = [], {}
        if specs:
            if memory is not None:
                specs = tuple(placed(one, system, memory) for one in specs)
                for one in specs:
                    check_fits(one, disk)
            work.stage("runs that the runtime is fitted to")
            settled, note = fit_here(system, disk, count, day, work.part, quick=quick)
            notes.append(note)
            work.stage("runs")
            rows = compare(measure(specs, disk, count, work.part), settled)
            fitted = settled.figures
    told = str(output) if output is not None else system.id
    result = result_of(told, found, rows, fitted, notes)
    if output is not None:
        click.echo(f"wrote {output}", err=True)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if form == "json":
        echo_json(result.model_dump(mode="json"))
        return
    if result.machine is not None:
        print_machine(result.machine)
    if result.runs:
        print_runs(result)
    hint("planner probe -o my-host.toml" if output is None else f"planner plan MODEL {output}")
