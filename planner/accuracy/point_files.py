"""Files of benchmark points as columns: cells to numbers and catalogue ids, and a reason for every row that is no point.

Two forms, told apart by their header: planner's own (``COLUMNS``) and that of the public continuous-benchmark file, whose
labels ``planner.accuracy.labels`` decodes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.labels import (
    CACHE_DTYPES,
    LABEL_COLUMNS,
    MAX_COUNT,
    MAX_LABEL,
    RULE_MEANINGS,
    WEIGHT_DTYPES,
    Deployed,
    Skip,
    decode,
    known_model,
    model_of,
    runtime_of,
    system_of,
)
from planner.documents import read_text
from planner.errors import InputError, nearest
from planner.runtimes.schema import RUNTIMES

MAX_BYTES = 64 * 2**20
MAX_ROWS = 100_000
MAX_TOKENS = 16_777_216
MAX_SECONDS = 1e6
MIN_SECONDS = 1e-9

MISMATCH = "concurrency is not workers x dp x batch"
"""The note of a disaggregated row whose labels contradict one another there."""

Counts: TypeAlias = NDArray[np.int64]
Numbers: TypeAlias = NDArray[np.float64]
Texts: TypeAlias = tuple[str, ...]
Columns: TypeAlias = dict[str, Any]
"""``Texts``, ``Counts`` or ``Numbers`` by name, each of n rows."""
_Rows: TypeAlias = list[tuple[int, list[str]]]
"""With the line on which each ends."""

_DECODE = ("tp", "pp", "dp", "ep", "workers")
_PREFILL = ("prefill_tp", "prefill_pp", "prefill_dp", "prefill_ep", "prefill_workers")
COUNTS = ("concurrency", *_DECODE, *_PREFILL)
NUMBERS = {"isl": MAX_TOKENS, "osl": MAX_TOKENS, "batch": MAX_COUNT, "ttft_s": MAX_SECONDS, "tpot_s": MAX_SECONDS}
"""With the most that is believed."""
COLUMNS = (
    *("id", "model", "hardware", "runtime", "backend", "version", "weight_dtype", "kv_dtype", "mode", "isl", "osl"),
    *("concurrency", *_DECODE, "batch", *_PREFILL),
    *("ttft_s", "tpot_s", "label_model", "system", "precision", "rule", "note"),
)
DEFAULTS = {
    **dict.fromkeys(_DECODE[1:], "1"),
    **dict.fromkeys(_PREFILL, "0"),
    **{"mode": "agg", "kv_dtype": "bf16", "rule": "stated"},
}
"""What an empty cell of our own form means, beside ``model``, ``hardware`` and ``runtime``, which follow from the labels then."""
NEEDED = ("id", "isl", "osl", "concurrency", "tp")
_EITHER = (("model", "label_model"), ("hardware", "system"), ("runtime", "backend"), ("ttft_s", "tpot_s"))
_PUBLIC_LOAD = ("isl", "osl", "concurrency", "measured_ttft_ms", "measured_tpot_ms")
_PUBLIC_NEEDED = (
    *("id", "model", "system", "backend", "precision", "mode", *_PUBLIC_LOAD),
    *("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size"),
)
_PUBLIC = {"id", *LABEL_COLUMNS, *_PUBLIC_LOAD, "gemm_quant_mode", "moe_quant_mode"}
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)


class _Reasons:
    """The first reason found for each row; ``""`` where it is kept."""

    def __init__(self, rows: int) -> None:
        self.found: list[Skip | Literal[""]] = [""] * rows

    def mark(self, bad: NDArray[np.bool_], reason: Skip) -> None:
        for row in np.flatnonzero(bad).tolist():
            self.found[row] = self.found[row] or reason

    def kept(self) -> list[int]:
        return [row for row, reason in enumerate(self.found) if not reason]


def read_columns(path: Path) -> tuple[Columns, list[tuple[str, Skip]]]:
    """The columns ``COLUMNS`` of all rows that are points, in the file's order, and the id (or line) and reason of the others.

    ``InputError`` where the file as a whole cannot be read: no CSV, a header of neither form, too large.
    """
    where = path.name
    header, rows, broken = _table(read_text(path, max_bytes=MAX_BYTES), where)
    public = len(_PUBLIC & set(header)) > len(set(COLUMNS) & set(header))
    for name in _PUBLIC_NEEDED if public else NEEDED:
        if name not in header:
            mend = "write the columns of planner/accuracy/points/README.md or of the public continuous-benchmark file"
            raise InputError(f"has no column {name!r}", where=where, mend=mend)
    if not public:
        _refuse_others(header, where)
    texts: list[Texts] = list(zip(*(row for _, row in rows), strict=True)) or [()] * len(header)
    reasons = _Reasons(len(rows))
    columns = (_of_public if public else _of_ours)(dict(zip(header, texts, strict=True)), len(rows), reasons)
    at = header.index("id")
    skipped = [(line, row[at].strip(), reason) for (line, row), reason in zip(rows, reasons.found, strict=True) if reason]
    return chosen(columns, reasons.kept()), [(name, reason) for _, name, reason in sorted([*skipped, *broken])]


def chosen(columns: Columns, rows: list[int]) -> Columns:
    """Some rows of columns, in the order given."""
    return {k: tuple(v[row] for row in rows) if isinstance(v, tuple) else v[rows] for k, v in columns.items()}


def _table(text: str, where: str) -> tuple[list[str], list[tuple[int, list[str]]], list[tuple[int, str, Skip]]]:
    """The header, the rows of as many cells, with their lines, and those that are broken or repeat an id."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    broken: list[tuple[int, str, Skip]] = []
    seen: set[str] = set()
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            name = next(name for number, name in enumerate(header) if name in header[:number])
            raise InputError(f"has the column {name[:32]!r} twice", where=where, mend="remove one")
        at = header.index("id") if "id" in header else 0
        for row in reader:
            if not row:
                continue
            if len(rows) + len(broken) >= MAX_ROWS:
                raise InputError(f"holds more than {MAX_ROWS} rows", where=where, mend="this does not look like the right file")
            name = row[at].strip() if len(row) == len(header) else ""
            if not name or max(map(len, row)) > MAX_LABEL or not "".join(row).isprintable():
                broken.append((reader.line_num, f"line {reader.line_num}", "row-broken"))
            elif name in seen:
                broken.append((reader.line_num, name, "id-repeated"))
            else:
                seen.add(name)
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", where=f"{where} line {reader.line_num}", mend="correct the file") from None
    if not header:
        raise InputError("is empty", where=where, mend="give a header and a row for every point")
    return header, rows, broken


def _refuse_others(header: list[str], where: str) -> None:
    for name in header:
        if name not in COLUMNS:
            raise InputError(f"has an unknown column {name[:32]!r}", where=where, mend=nearest(name[:32], list(COLUMNS)))
    for either in _EITHER:
        if not set(either) & set(header):
            raise InputError(f"has neither column {either[0]!r} nor {either[1]!r}", where=where, mend="add one")


def _number(text: str) -> float:
    """NaN of an empty text, infinity of what is no number."""
    return float(text) if _NUMBER.fullmatch(text) else np.inf if text else np.nan


def _numbers(texts: Sequence[str], reasons: _Reasons, most: float, *, whole: bool = False) -> Numbers:
    """Float column, NaN where empty; text, more than ``most`` and fractions of what is ``whole`` are marked, and NaN too."""
    read = {text: _number(text.strip()) for text in set(texts)}
    found = np.array([read[text] for text in texts], float)
    bad = np.abs(found) > most
    if whole:
        bad |= ~np.isnan(found) & (found != np.floor(found))
    reasons.mark(bad, "number-unreadable")
    return np.where(bad, np.nan, found)


def _counts(texts: Sequence[str], reasons: _Reasons) -> Counts:
    """Whole numbers from 0 on; an empty cell is 0."""
    found = np.nan_to_num(_numbers(texts, reasons, MAX_COUNT, whole=True))
    reasons.mark(found < 0, "number-unreadable")
    return found.astype(np.int64)


def _load_reasons(isl: Numbers, osl: Numbers, concurrency: Numbers, reasons: _Reasons) -> None:
    reasons.mark(~((isl >= 1.0) & (osl >= 2.0)), "lengths-missing")
    reasons.mark(~(concurrency >= 1.0), "concurrency-missing")


def _time_reasons(ttft: Numbers, tpot: Numbers, reasons: _Reasons) -> None:
    """Of times in seconds."""
    reasons.mark((ttft <= 0.0) | (tpot <= 0.0) | np.isnan(ttft) & np.isnan(tpot), "time-missing")
    reasons.mark((ttft < MIN_SECONDS) | (tpot < MIN_SECONDS), "number-unreadable")


def _of_public(cells: dict[str, Texts], rows: int, reasons: _Reasons) -> Columns:
    """Our columns from those of the public file; what is marked in ``reasons`` holds no sense."""
    isl, osl, concurrency = (
        _numbers(cells[name], reasons, MAX_TOKENS, whole=name == "concurrency") for name in ("isl", "osl", "concurrency")
    )
    ttft, tpot = (_numbers(cells[name], reasons, MAX_SECONDS * 1e3) for name in _PUBLIC_LOAD[3:])
    blank = ("",) * rows
    _load_reasons(isl, osl, concurrency, reasons)
    labels = tuple(zip(*(cells.get(name, blank) for name in LABEL_COLUMNS), strict=True))
    known = {label: decode(label) for label in set(labels)}
    decoded = []
    for row, label in enumerate(labels):
        found = known[label]
        if isinstance(found, str):
            reasons.found[row] = reasons.found[row] or found
            found = _NOTHING
        decoded.append(found)
    _time_reasons(ttft / 1e3, tpot / 1e3, reasons)
    made = dict(zip(Deployed._fields, zip(*decoded, strict=True) if decoded else ((),) * len(_NOTHING), strict=True))
    columns: Columns = {name: np.array(made[name], np.int64) if name in COUNTS else made[name] for name in made}
    columns["mode"] = tuple(mode.strip().casefold() for mode in cells["mode"])
    split = np.array([mode == "disagg" for mode in columns["mode"]], bool)
    batch = np.where(split, _numbers(cells.get("decode_batch_size", blank), reasons, MAX_COUNT), np.nan)
    held = columns["workers"] * columns["dp"] * batch
    return columns | {
        "id": _stripped(cells["id"]),
        "backend": _stripped(cells["backend"]),
        "version": _stripped(cells.get("backend_version", blank)),
        "isl": isl,
        "osl": osl,
        "concurrency": np.nan_to_num(concurrency).astype(np.int64),
        "batch": batch,
        "ttft_s": np.round(ttft / 1e3, 12),
        "tpot_s": np.round(tpot / 1e3, 12),
        "label_model": _stripped(cells["model"]),
        "system": _stripped(cells["system"]),
        "precision": _stripped(cells["precision"]),
        "note": tuple(MISMATCH if wrong else "" for wrong in (split & (held != concurrency)).tolist()),
    }


_NOTHING = Deployed("", "", "", "", "bf16", 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, "stated")


def _stripped(texts: Iterable[str]) -> Texts:
    return tuple(text.strip() for text in texts)


def _of_ours(cells: dict[str, Texts], rows: int, reasons: _Reasons) -> Columns:
    """Our columns, names replaced by ids; what is marked in ``reasons`` holds no sense."""
    columns: Columns = {}
    for name in COLUMNS:
        default = DEFAULTS.get(name, "")
        texts = tuple(text.strip() or default for text in cells.get(name, ("",) * rows))
        if name in COUNTS:
            columns[name] = _counts(texts, reasons)
        elif name in NUMBERS:
            columns[name] = _numbers(texts, reasons, NUMBERS[name])
        else:
            columns[name] = texts
    _load_reasons(columns["isl"], columns["osl"], columns["concurrency"], reasons)
    named = tuple(zip(*(columns[name] for name in _NAMES), strict=True))
    model, hardware, runtime, experts, devices = _looked_up(named, reasons)
    split = np.array([mode == "disagg" for mode in columns["mode"]], bool)
    decoding, prefilling = (np.array([columns[name] for name in names]).reshape(5, -1) for names in (_DECODE, _PREFILL))
    reasons.mark(split & ((decoding[4] < 1) | (prefilling < 1).any(axis=0)), "workers-unknown")
    reasons.mark(decoding[0] < 1, "parallelism-missing")
    impossible = _impossible(decoding, np.array(experts, bool), np.array(devices, np.int64))
    of_prefill = _impossible(prefilling, np.array(experts, bool), np.array(devices, np.int64))
    others = (decoding[4] != 1) | (prefilling > 0).any(axis=0)
    reasons.mark(impossible | np.where(split, of_prefill, others), "parallelism-impossible")
    reasons.mark(columns["batch"] <= 0.0, "number-unreadable")
    _time_reasons(columns["ttft_s"], columns["tpot_s"], reasons)
    for name, label in (("label_model", "model"), ("system", "hardware")):
        columns[name] = tuple(own or other for own, other in zip(columns[name], columns[label], strict=True))
    return columns | {"model": model, "hardware": hardware, "runtime": runtime}


_NAMES = (
    *("mode", "model", "label_model", "hardware", "system", "runtime", "backend", "version"),
    *("weight_dtype", "kv_dtype", "rule"),
)
_Found: TypeAlias = tuple[str, str, str, bool, int]


def _impossible(sizes: Counts, experts: NDArray[np.bool_], devices: Counts) -> NDArray[np.bool_]:
    """Of workers ``(tp, pp, dp, ep, …)`` by column: a size missing, more devices than there are, experts that do not spread."""
    tp, pp, dp, ep = sizes[:4]
    spread = (tp * dp % np.maximum(ep, 1) == 0) & (experts | (ep == 1))
    wrong: NDArray[np.bool_] = (sizes[:4] < 1).any(axis=0) | (tp * pp * dp > devices) | ~spread
    return wrong


def _looked_up(rows: Sequence[tuple[str, ...]], reasons: _Reasons) -> tuple[Any, ...]:
    """Columns of what rows of ``_NAMES`` name: ids of model, system and runtime, whether it has experts, the system's devices."""
    known = {row: _look_up(*row) for row in set(rows)}
    for number, row in enumerate(rows):
        found = known[row]
        if isinstance(found, str):
            reasons.found[number] = reasons.found[number] or found
    nothing: _Found = ("", "", "", False, 0)
    table = {row: nothing if isinstance(found, str) else found for row, found in known.items()}
    return tuple(zip(*(table[row] for row in rows), strict=True)) or ((),) * 5


def _look_up(*row: str) -> Skip | _Found:
    mode, model, label, hardware, system_label, runtime, backend, version, weights, cache, rule = row
    if mode not in ("agg", "disagg"):
        return "mode-unknown"
    if rule not in RULE_MEANINGS:
        return "row-broken"
    named = known_model(model) if model else model_of(label)
    system = system_of(hardware or system_label)
    if named is None:
        return "model-unknown"
    if system is None:
        return "hardware-unknown"
    profile = (runtime if runtime in RUNTIMES.ids else None) if runtime else runtime_of(backend, version)
    if profile is None:
        return "backend-unknown"
    if weights not in WEIGHT_DTYPES or cache not in CACHE_DTYPES:
        return "precision-unknown"
    return named.id, system[0], profile, named.experts, system[1]
