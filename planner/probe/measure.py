"""The whole probe of a machine, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from planner.errors import InputError
from planner.hardware import System
from planner.probe import blas
from planner.probe.accelerator import Accelerator, find_accelerator
from planner.probe.asking import one_line
from planner.probe.disk import Disk, measure_disk
from planner.probe.limits import Bound, core_bound, cores, memory_bound, threads_of
from planner.probe.memory import Memory, measure_memory
from planner.probe.products import Products, measure_products
from planner.probe.profile import profile_of
from planner.probe.topology import Topology, find_topology

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How much is read and how often. Quick: for a look, and for tests."""

    array_bytes: int
    disk_bytes: int
    depths: tuple[int, ...]
    runs: int
    disk_runs: int
    disk_seconds: float
    quick: bool


FULL = Effort(2**29, 2**30, (1, 2, 4, 8, 16), 9, 5, 0.6, False)
QUICK = Effort(2**27, 2**27, (1, 8), 3, 3, 0.1, True)


LEAST_ARRAY = 2**26
"""Bytes of an array, below which nothing would be measured but caches."""


@dataclass(frozen=True)
class Probed:
    """Everything measured, with notes on what could not be measured as meant."""

    threads: int
    cores: str
    """Of how many, and what allows no more."""
    quick: bool
    blas: str
    memory: Memory
    products: tuple[Products, ...]
    disk: Disk | None
    accelerator: Accelerator | None
    topology: Topology | None
    notes: tuple[str, ...]

    def profile(self, name: str, day: date) -> System:
        """As a hardware profile."""
        return profile_of(
            name,
            day,
            self.threads,
            self.memory,
            self.products,
            self.disk,
            self.accelerator,
            self.topology,
            cores=self.cores,
            quick=self.quick,
        )

    def host(self, name: str, day: date) -> System:
        """The processor alone, on which the reference run runs, whatever else is there."""
        return replace(self, accelerator=None, topology=None).profile(name, day)


def probe(effort: Effort, folder: Path | None, threads: int | None = None, say: Say = lambda text: None) -> Probed:
    """Measure this machine on ``threads`` cores (default all that this process may use); no disk without a ``folder``.

    ``InputError`` where the folder has no room, so many threads cannot be had, or memory is too little to measure.
    """
    bound, most = core_bound(), cores()
    count = threads_of(threads)
    effort, notes = _within(effort)
    if effort.quick:
        notes.append("a quick look: three runs behind most figures, so their spread says little")
    notes += _of_cores(bound, most)
    disk = None
    if folder is not None:
        say("disk")
        disk = measure_disk(
            folder, size=effort.disk_bytes, depths=effort.depths, runs=effort.disk_runs, seconds=effort.disk_seconds
        )
        notes += disk.notes
    with blas.threads(count) as told:
        if not told:
            notes.append("this numpy's BLAS cannot be told its threads: products ran on as many as it takes")
        say("memory")
        memory = measure_memory(count, array_bytes=effort.array_bytes, runs=effort.runs)
        say("products")
        kinds = ("fp32", "fp64")
        products = tuple(measure_products(kind, quick=effort.quick, runs=effort.runs) for kind in kinds)
    for part in products:
        if part.left_out:
            notes.append(f"products of {part.dtype} of {part.left_out} rows and more take seconds each here: left out")
    say("accelerators")
    topology, unread = find_topology()
    accelerator, unmeasured = _accelerator(effort.runs)
    notes += [*unread, *unmeasured, *_of_accelerators(accelerator, topology)]
    said = f"{bound.of:g} ({bound.said})" if count == most else f"{bound.of:g} (--threads)"
    return Probed(
        count, said, effort.quick, blas.name(), memory, products, disk, accelerator, topology, tuple(dict.fromkeys(notes))
    )


def _within(effort: Effort) -> tuple[Effort, list[str]]:
    """The effort with arrays that the memory to be had has room for, four times over; and a note where that shrinks them."""
    bound = memory_bound()
    had, size = f"{bound.value / 1e9:.2f} GB of memory is free ({bound.said})", effort.array_bytes
    while size > LEAST_ARRAY and bound.value < 4 * size:
        size //= 2
    if bound.value < 4 * size:
        raise InputError(f"{had}, too little to measure it", where="probe", mend="end something, or raise that limit")
    notes = [f"{bound.value / 1e9:.2f} GB of {bound.of / 1e9:.2f} GB of free memory count: {bound.said}"] if bound.binds else []
    if size == effort.array_bytes:
        return effort, notes
    notes.append(
        f"{had}: arrays of {size / 1e6:.0f} MB in place of {effort.array_bytes / 1e6:.0f} MB, which caches may hold in part"
    )
    return replace(effort, array_bytes=size), notes


def _of_cores(bound: Bound, most: int) -> list[str]:
    if not bound.binds:
        return []
    notes = [f"{most} of {bound.of:g} cores count: {bound.said}"]
    if bound.value < 1.0:
        notes.append(f"{bound.said} grants {bound.value:g} of a core: what was measured is what is left when it is held back")
    return notes


def _accelerator(runs: int) -> tuple[Accelerator | None, list[str]]:
    """What torch measures; a note where it is there but fails."""
    try:
        return find_accelerator(runs), []
    except (ImportError, OSError, RuntimeError) as error:
        return None, [f"torch measured no GPU: {one_line(str(error))}"]


def _of_accelerators(found: Accelerator | None, topology: Topology | None) -> list[str]:
    if found is None:
        if topology is None:
            return []
        said = ", ".join(filter(None, (topology.tool, topology.joined)))
        seen = f"{len(topology.names)} accelerators ({said})"
        return [f"{seen} are not measured: that takes torch with support for them; the profile is of the host"]
    notes = []
    if found.count > 1 and found.all_reduce is None:
        notes.append(f"no all-reduce ran over the {found.count} GPUs; the profile has no network between them")
    if len(found.names) > 1:
        notes.append(f"the GPUs differ ({', '.join(found.names)}): the first was measured and stands for all")
    if "MIG" in found.name:
        notes.append(f"{found.name} is a part of a GPU: the power assumed is that of a whole one")
    if topology is not None and len(topology.names) != found.count:
        what = f"{topology.tool} sees {len(topology.names)} accelerators, torch {found.count}"
        notes.append(f"{what}: how the latter are joined is not said")
    return notes
