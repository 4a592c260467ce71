"""A sweep from its specification to its results, begun or taken up again."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from planner.documents import check_target, write_whole
from planner.errors import InputError
from planner.sweep.drive import Drive
from planner.sweep.executors import Workers, workers
from planner.sweep.journal import Journal, journal_of
from planner.sweep.parts import Parts
from planner.sweep.points import Points, sweep_id
from planner.sweep.rows import STATUSES, Row
from planner.sweep.spec import read_spec
from planner.sweep.tables import check_format, read_rows, write_rows
from planner.sweep.work import Result

_FAILED = ("error", "stopped")


class Progress:
    """Hooks that a sweep calls as it goes; every method does nothing until somebody overrides it."""

    def started(self, points: int, kept: int) -> None:
        """So many points, of which so many have rows from before."""

    def advanced(self, status: Counter[str]) -> None:
        """So many points have rows now, by status; called about once a second too."""


@dataclass(frozen=True)
class Summary:
    """A finished sweep: points, those whose rows were there before, and rows by status."""

    sweep: str
    points: int
    kept: int
    status: dict[str, int]
    damaged: int
    """Lines of the journal that held no row."""


@dataclass(frozen=True)
class Asked:
    """How to run a sweep. ``scheduler`` goes with the executor ``dask``, ``count`` with threads and processes.

    ``resume``: take from the results of another sweep the rows that are right for this one; ``force``: take none, and overwrite;
    ``retry``: plan points again whose rows say error or stopped. ``plans``: a folder for the plan files, ``POINT.json``.
    """

    executor: str = "process"
    scheduler: str | None = None
    count: int | None = None
    resume: bool = False
    force: bool = False
    retry: bool = False
    plans: Path | None = None
    profiles: tuple[Path, ...] = ()


class Sweep:
    """A specification as read, with everything that it names; ``ids``: of its points, in its order. ``InputError`` where
    something is wrong with it."""

    def __init__(self, path: Path, profiles: tuple[Path, ...] = ()) -> None:
        self.spec = read_spec(path)
        self.points = Points(self.spec, Parts(path.parent, str(path), profiles))
        self.ids = tuple(point.id for point in self.points)
        self.id = sweep_id(self.ids)

    def run(self, output: Path, asked: Asked, progress: Progress | None = None) -> Summary:
        """Plan every point that has no row yet and write the results. Whatever ends this early, the rows so far are kept in the
        journal beside ``output``, and the same call goes on from there."""
        hooks = progress or Progress()
        check_format(output)
        existed = output.exists()
        check_target(output, force=True)
        with Journal(journal_of(output)) as journal:
            try:
                self._take_up(journal, output, asked, existed)
                kept = self._kept(journal, asked)
                if asked.plans is not None:
                    _make(asked.plans)
                missing = len(kept) < len(self.ids)
                staff = workers(asked.executor, asked.count, asked.scheduler) if missing else None
            except InputError:
                if not journal.status:
                    journal.remove()
                raise
            hooks.started(len(self.ids), len(kept))
            if staff is not None:
                self._compute(journal, kept, asked, hooks, staff)
            write_rows(output, journal.rows(self.ids), force=existed or asked.force)
            journal.remove()
            status = Counter(journal.status[point] for point in self.ids)
        counts = {name: status[name] for name in STATUSES}
        return Summary(self.id, len(self.ids), len(kept), counts, journal.damaged)

    def _take_up(self, journal: Journal, output: Path, asked: Asked, existed: bool) -> None:
        """Begin the journal, with the rows of results from before that are right for this sweep."""
        if asked.force:
            journal.begin(self.id, anew=True)
            return
        mine = frozenset(self.ids)
        found = frozenset(str(row["point"]) for row in read_rows(output)) if existed else frozenset()
        if not asked.resume and journal.sweep != self.id:
            for where, points in ((output, found), (journal.path, frozenset(journal.status) if journal.sweep else frozenset())):
                if points and points != mine:
                    what = f"holds another sweep or version: {len(points & mine):,} of its {len(points):,} points are among "
                    what += f"the {len(mine):,} of this one"
                    mend = "--resume keeps those, --force none; or name other results with -o"
                    raise InputError(what, where=str(where), mend=mend)
        journal.begin(self.id)
        every = iter(read_rows(output) if found else ())
        while rows := list(islice(every, 1000)):
            journal.append(row for row in rows if row["point"] in mine and row["point"] not in journal.status)

    def _kept(self, journal: Journal, asked: Asked) -> frozenset[str]:
        """The points that need not be planned."""
        done = (point for point in self.ids if point in journal.status)
        if asked.retry:
            done = (point for point in done if journal.status[point] not in _FAILED)
        folder = asked.plans
        if folder is not None:
            done = (point for point in done if journal.status[point] != "ok" or _plan_file(folder, point).is_file())
        return frozenset(done)

    def _compute(self, journal: Journal, kept: frozenset[str], asked: Asked, hooks: Progress, staff: Workers) -> None:
        status = Counter(journal.status[point] for point in kept)
        drive = Drive(staff, self.points.library, plans=asked.plans is not None)
        missing = (point for point in self.points if point.id not in kept)
        now = True
        try:
            for results in drive.results(missing, lambda: hooks.advanced(status)):
                if asked.plans is not None:
                    _keep_plans(asked.plans, results)
                journal.append(result.row for result in results)
                status.update(str(result.row["status"]) for result in results)
                hooks.advanced(status)
            now = False
        finally:
            staff.close(now=now)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made ({error.strerror})", where=str(folder), mend="choose another folder") from None


def _plan_file(folder: Path, point: str) -> Path:
    return folder / f"{point}.json"


def _keep_plans(folder: Path, results: Iterable[Result]) -> None:
    """Before their rows are kept: a row without its plan is planned again."""
    for result in results:
        if result.plan is not None:
            write_whole(_plan_file(folder, str(result.row["point"])), zlib.decompress(result.plan), force=True)


def rows_of(output: Path) -> list[Row]:
    """The rows of finished results, in the order of the specification."""
    check_format(output)
    return list(read_rows(output))
