"""The whole probe of a machine, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from planner.errors import InputError
from planner.hardware import System
from planner.probe import blas
from planner.probe.accelerator import Accelerator, find_accelerator
from planner.probe.disk import THROUGH_CACHE, Disk, measure_disk
from planner.probe.memory import Memory, available_bytes, measure_memory
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


@dataclass(frozen=True)
class Probed:
    """Everything measured, with notes on what could not be measured as meant."""

    threads: int
    blas: str
    memory: Memory
    products: tuple[Products, ...]
    disk: Disk | None
    accelerator: Accelerator | None
    topology: Topology | None
    notes: tuple[str, ...]

    def profile(self, name: str, day: date) -> System:
        """As a hardware profile."""
        return profile_of(name, day, self.threads, self.memory, self.products, self.disk, self.accelerator, self.topology)


def probe(effort: Effort, folder: Path | None, threads: int | None = None, say: Say = lambda text: None) -> Probed:
    """Measure this machine on ``threads`` cores (default all); no disk without a ``folder``.

    ``InputError`` where the folder has no room, or so many threads cannot be had.
    """
    most = blas.cores()
    count = threads or most
    if count > most:
        raise InputError(f"{count} is more than the {most} cores here", where="--threads", mend=f"give {most} or less")
    if available_bytes() < 4 * effort.array_bytes:
        what = f"{available_bytes() / 1e9:.1f} GB of memory is free, too little to measure it"
        raise InputError(what, where="probe", mend="end something, or use --quick")
    notes = []
    disk = None
    if folder is not None:
        say("disk")
        disk = measure_disk(
            folder, size=effort.disk_bytes, depths=effort.depths, runs=effort.disk_runs, seconds=effort.disk_seconds
        )
        if not disk.direct:
            notes.append(f"{folder}: {THROUGH_CACHE}; name another folder with --disk")
    with blas.threads(count) as told:
        if not told and count != most:
            notes.append("this numpy's BLAS cannot be told its threads; products ran on as many as it takes")
        say("memory")
        memory = measure_memory(count, array_bytes=effort.array_bytes, runs=effort.runs)
        say("products")
        kinds = ("fp32", "fp64")
        products = tuple(measure_products(kind, quick=effort.quick, runs=effort.runs) for kind in kinds)
    say("accelerators")
    topology = find_topology()
    accelerator = find_accelerator(effort.runs)
    if topology is not None and accelerator is None:
        seen = f"{len(topology.names)} accelerators ({topology.tool})"
        notes.append(f"{seen} are not measured: that takes torch with support for them; the profile is of the host")
    if accelerator is not None and accelerator.count > 1 and accelerator.all_reduce is None:
        notes.append(f"no all-reduce ran over the {accelerator.count} GPUs; the profile has no network between them")
    return Probed(count, blas.name(), memory, products, disk, accelerator, topology, tuple(notes))
