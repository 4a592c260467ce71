"""Benchmark points: a deployment, its load, and the times to first token and per token that were measured.

``planner.accuracy.point_files`` reads them; ``points/README.md`` describes the columns of a file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from planner.accuracy.labels import SKIP_REASONS, Skip, model_of, runtime_of, system_of
from planner.accuracy.point_files import COLUMNS, DEFAULTS, NEEDED, Columns, Counts, Numbers, Texts, chosen, read_columns
from planner.documents import write_whole

CONTINUOUS = Path(__file__).parent / "points" / "continuous.csv"
PAIRS_OF = 64
"""Of a group of repeats so many rows are paired with one another."""


@dataclass(frozen=True, eq=False)
class Points:
    """Columns of n points each; ``model``, ``hardware`` and ``runtime`` are ids of the catalogues.

    Parallelism is that of one worker that decodes (``dp`` = attention data parallelism, ``ep`` = ranks the experts are spread
    over); a worker has ``tp * pp * dp`` devices. ``batch`` is per attention rank, ``concurrency`` over the whole deployment.
    ``weight_dtype`` ``""`` = as the checkpoint. Times are NaN where they were not measured.
    """

    id: Texts
    model: Texts
    hardware: Texts
    runtime: Texts
    backend: Texts
    version: Texts
    weight_dtype: Texts
    kv_dtype: Texts
    mode: Texts
    """``agg`` or ``disagg``."""
    isl: Numbers
    osl: Numbers
    concurrency: Counts
    tp: Counts
    pp: Counts
    dp: Counts
    ep: Counts
    workers: Counts
    """That decode; 1 for ``agg``."""
    batch: Numbers
    prefill_tp: Counts
    """0, as the other ``prefill_*``, where no workers only prefill."""
    prefill_pp: Counts
    prefill_dp: Counts
    prefill_ep: Counts
    prefill_workers: Counts
    ttft_s: Numbers
    tpot_s: Numbers
    label_model: Texts
    system: Texts
    precision: Texts
    rule: Texts
    """Of ``labels.RULE_MEANINGS``."""
    note: Texts

    def __len__(self) -> int:
        return len(self.id)

    @property
    def devices(self) -> Counts:
        """Of the whole deployment."""
        of_decode = self.tp * self.pp * self.dp * self.workers
        return of_decode + self.prefill_tp * self.prefill_pp * self.prefill_dp * self.prefill_workers

    @property
    def columns(self) -> Columns:
        """Every column by name, in the order of ``COLUMNS``."""
        return {name: getattr(self, name) for name in COLUMNS}

    def take(self, index: Any) -> Points:
        """The points of an index array, slice or boolean mask, in its order."""
        return Points(**chosen(self.columns, np.arange(len(self))[index].tolist()))


def read_points(path: Path) -> tuple[Points, list[tuple[str, Skip]]]:
    """The points of a file of either form in its order, and the id (or line) and reason of every row that is none.

    ``InputError`` where the file as a whole cannot be read: no CSV, a header of neither form, too large.
    """
    columns, skipped = read_columns(path)
    return Points(**columns), skipped


def points_text(points: Points) -> str:
    """The points as CSV in our own form; what an empty cell means anyway is left out, and so are columns without a cell."""
    columns: dict[str, list[str]] = {}
    for name in COLUMNS:
        column, default = getattr(points, name), DEFAULTS.get(name, "")
        texts = column if isinstance(column, tuple) else [_text(value) for value in column.tolist()]
        columns[name] = ["" if text == default else text for text in texts]
    for name, follows in _FOLLOWING.items():
        labels = zip(*(getattr(points, label) for label in _LABELS_OF[name]), strict=True)
        columns[name] = ["" if follows(*label) == text else text for text, label in zip(columns[name], labels, strict=True)]
    header = [name for name in COLUMNS if name in NEEDED or any(columns[name]) or not len(points)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*(columns[name] for name in header), strict=True))
    return out.getvalue()


def _model_id(label: str) -> str:
    named = model_of(label)
    return named.id if named else ""


def _system_id(label: str) -> str:
    system = system_of(label)
    return system[0] if system else ""


_LABELS_OF = {"model": ("label_model",), "hardware": ("system",), "runtime": ("backend", "version")}
_FOLLOWING: dict[str, Callable[..., str | None]] = {"model": _model_id, "hardware": _system_id, "runtime": runtime_of}


def _text(value: float) -> str:
    """The shortest text that reads back as the same number; nothing for NaN."""
    return "" if value != value else repr(value).removesuffix(".0")


def write_points(points: Points, path: Path, *, force: bool = False) -> None:
    """Write the points in our own form, which ``read_points`` reads back as they are; an existing file only with ``force``."""
    write_whole(path, points_text(points), force=force)


def counts_by_reason(skipped: Iterable[tuple[str, Skip]]) -> dict[Skip, int]:
    """How often each reason that occurs does, in the order of the closed list."""
    found = [reason for _, reason in skipped]
    return {reason: found.count(reason) for reason in SKIP_REASONS if reason in found}


Mode = Literal["agg", "disagg"]
Time = Literal["tpot", "ttft"]
Version = Literal["same", "any"]
_MODES: tuple[Mode, ...] = get_args(Mode)
_TIMES: tuple[Time, ...] = get_args(Time)
_VERSIONS: tuple[Version, ...] = get_args(Version)


class Noise(NamedTuple):
    """How far repeats of one deployment and load lie apart: median and 90th percentile of larger over smaller."""

    mode: Mode
    time: Time
    version: Version
    pairs: int
    median: float
    """NaN, as ``p90``, without pairs."""
    p90: float


_MEASURED = ("id", "ttft_s", "tpot_s", "batch", "note", "label_model", "system", "runtime")
_LABELS = tuple(name for name in COLUMNS if name not in _MEASURED)


def repeats(points: Points, *, version: Version = "same") -> Counts:
    """Pairs of points of one deployment and load, as indices, (pairs, 2).

    Every label column agrees, but for ``version`` with ``"any"``; a row that repeats another's times to the digit is the same
    measurement listed twice, and no pair.
    """
    names = [name for name in _LABELS if version == "same" or name != "version"]
    columns = [column if isinstance(column, tuple) else column.tolist() for column in (getattr(points, name) for name in names)]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(zip(*columns, strict=True)):
        groups.setdefault(key, []).append(row)
    times = list(zip(*(np.nan_to_num(column, nan=-1.0).tolist() for column in (points.ttft_s, points.tpot_s)), strict=True))
    found: list[tuple[int, int]] = []
    for rows in groups.values():
        once = list({times[row]: row for row in reversed(rows)}.values())[::-1][:PAIRS_OF]
        found += [(first, second) for at, first in enumerate(once) for second in once[at + 1 :]]
    return np.array(found, np.int64).reshape(-1, 2)


def noise_floor(points: Points) -> tuple[Noise, ...]:
    """How well any model could do: the spread of repeats, of aggregated and disaggregated points apart."""
    found = []
    split = np.array([mode == "disagg" for mode in points.mode], bool)
    for mode in _MODES:
        for time in _TIMES:
            for version in _VERSIONS:
                column = points.tpot_s if time == "tpot" else points.ttft_s
                pairs = repeats(points, version=version)
                of_mode = pairs[split[pairs[:, 0]] == (mode == "disagg")]
                ratio = column[of_mode[:, 0]] / column[of_mode[:, 1]]
                ratio = ratio[~np.isnan(ratio)]
                ratio = np.maximum(ratio, 1.0 / ratio)
                ends = np.percentile(ratio, (50, 90)).tolist() if len(ratio) else [np.nan, np.nan]
                found.append(Noise(mode, time, version, len(ratio), *ends))
    return tuple(found)
