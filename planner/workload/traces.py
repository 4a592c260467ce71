"""Traces of requests, read in bounded memory: Mooncake's jsonl, the CSV of Azure's LLM traces of 2023, and plain CSV.

mooncake   a line of JSON a request: ``timestamp`` (ms), ``input_length``, ``output_length`` and ``hash_ids``, one for each block
           of 512 input tokens (https://github.com/kvcache-ai/Mooncake FAST25-release/traces)
azure      ``TIMESTAMP,ContextTokens,GeneratedTokens``, the time as ``2023-11-16 18:17:03.9799600``
           (https://github.com/Azure/AzurePublicDataset AzureLLMInferenceDataset2023)
csv        a header with ``arrival_s``, ``input_tokens`` and ``output_tokens`` in any order, and ``hash_ids`` if wanted: whole
           numbers with spaces between; other columns are passed over

Requests stand in order of arrival. A hash names a block and all before it, so equal hashes are the same prefix.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from planner.errors import InputError
from planner.workload.schema import MAX_TOKENS
from planner.workload.trace_lines import lines_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Format = Literal["mooncake", "azure", "csv"]
CHUNK_REQUESTS = 32_768
CHUNK_BLOCKS = 2**18
MAX_SECONDS = 1e11
MOONCAKE_BLOCK_TOKENS = 512
_COLUMNS: dict[Format, tuple[str, str, str]] = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    "csv": ("arrival_s", "input_tokens", "output_tokens"),
}
_MOMENT = re.compile(r"(?:19[7-9]|20[0-9]|21[0-9])[0-9](?:-[0-9]{2}){2}[ T][0-9]{2}(?::[0-9]{2}){2}(?:\.[0-9]{1,9})?", re.ASCII)
_KEYS = ("timestamp", "input_length", "output_length")
_HASHES = "hash_ids"


@dataclass(frozen=True)
class Requests:
    """Some requests in order of arrival, ``n`` of them.

    ``arrival_s`` [n] seconds since the first request of the trace; ``input_tokens``, ``output_tokens`` [n]; where the trace
    names blocks, ``blocks`` holds the hashes of all requests in a row and ``starts`` [n + 1] where those of each begin.
    """

    arrival_s: NDArray[np.float64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    blocks: NDArray[np.int64] | None = None
    starts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True)
class Trace:
    """A trace file whose kind is known; ``block_tokens`` are the input tokens of one hash, if it has hashes."""

    path: Path
    format: Format
    block_tokens: int | None

    def chunks(self) -> Iterator[Requests]:
        """The requests, some ten thousand at a time; ``InputError`` with the line for the first that is wrong."""
        rows = _json_rows(self.path) if self.format == "mooncake" else _csv_rows(self.path, self.format)
        order = _Order(self)
        batch = _Batch()
        for number, arrival, taken, given, hashes in rows:
            batch.add(number, arrival, taken, given, hashes)
            if len(batch.numbers) >= CHUNK_REQUESTS or len(batch.hashes) >= CHUNK_BLOCKS:
                yield order.checked(batch)
                batch = _Batch()
        if batch.numbers:
            yield order.checked(batch)
        elif order.first is None:
            raise InputError("holds no request", where=str(self.path), mend="name a trace")


@dataclass(frozen=True)
class Opening:
    """What the first request says: ``day`` on which the trace begins, where it has dates."""

    trace: Trace
    day: date | None


def open_trace(path: Path, form: Format | None = None, block_tokens: int | None = None) -> Opening:
    """A trace, its format told from its first line unless given.

    ``block_tokens``: input tokens of a hash; Mooncake's 512 unless given, and needed for CSV with ``hash_ids``.
    """
    lines = lines_of(path)
    number, first = next(lines, (0, ""))
    if not number:
        raise InputError("holds no request", where=str(path), mend="name a trace")
    cells = set() if first.startswith("{") else _cells(first[:10_000])
    if form is None:
        known: tuple[Format, ...] = (
            ("mooncake",) if first.startswith("{") else tuple(f for f in _COLUMNS if cells >= {*_COLUMNS[f]})
        )
        form = known[0] if known else None
    if form is None:
        what = f"line {number} begins no trace that is known"
        mend = "write a header with " + ",".join(_COLUMNS["csv"]) + ", or lines of JSON with " + ", ".join((*_KEYS, _HASHES))
        raise InputError(what, where=str(path), mend=mend)
    hashed = form == "mooncake" or (form == "csv" and _HASHES in cells)
    if not hashed and block_tokens is not None:
        raise InputError("has no hash_ids, whose size --block-tokens says", where=str(path), mend="leave it out")
    if hashed and block_tokens is None:
        if form != "mooncake":
            what = "the input tokens of one of its hash_ids are not known"
            raise InputError(what, where=str(path), mend="give them with --block-tokens")
        block_tokens = MOONCAKE_BLOCK_TOKENS
    if block_tokens is not None and not 1 <= block_tokens <= MAX_TOKENS:
        raise InputError(f"blocks of {block_tokens} tokens", where=str(path), mend=f"give 1 to {MAX_TOKENS}")
    day = None
    if form == "azure":
        row = next(_csv_rows(path, form), None)
        day = None if row is None else _moments([row[1]], [row[0]], str(path))[0].astype("M8[D]").astype(object)
    return Opening(Trace(path, form, block_tokens if hashed else None), day)


def _cells(line: str) -> set[str]:
    """The names in a header; none where the line is no CSV."""
    try:
        return {cell.strip() for row in csv.reader([line]) for cell in row}
    except csv.Error:
        return set()


Row = tuple[int, Any, Any, Any, list[int] | None]
"""Line, time of arrival, input and output tokens as the file has them, hashes."""


class _Batch:
    """Rows on their way to arrays."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.arrivals: list[Any] = []
        self.taken: list[Any] = []
        self.given: list[Any] = []
        self.hashes: list[int] = []
        self.starts: list[int] = [0]

    def add(self, number: int, arrival: Any, taken: Any, given: Any, hashes: list[int] | None) -> None:
        self.numbers.append(number)
        self.arrivals.append(arrival)
        self.taken.append(taken)
        self.given.append(given)
        if hashes is not None:
            self.hashes += hashes
        self.starts.append(len(self.hashes))


class _Order:
    """Checks batches one after the other and counts time from the first request."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.where = trace, str(trace.path)
        self.first: Any = None
        self.last = 0.0

    def checked(self, batch: _Batch) -> Requests:
        arrival_s = self._seconds(batch)
        taken = self._tokens(batch.taken, batch.numbers, "input tokens", 1)
        given = self._tokens(batch.given, batch.numbers, "output tokens", 0)
        if self.trace.block_tokens is None:
            return Requests(arrival_s, taken, given)
        try:
            blocks = np.array(batch.hashes, dtype=np.int64)
        except (OverflowError, ValueError, TypeError):
            self._refuse(batch, "hash_ids are not all whole numbers of 64 bits", _first_wide(batch))
        starts = np.array(batch.starts, dtype=np.int64)
        counts, size = np.diff(starts), self.trace.block_tokens
        wrong = (counts > -(-taken // size)) | (counts < taken // size)
        if wrong.any():
            at = int(np.argmax(wrong))
            what = f"{counts[at]} hash_ids for {taken[at]} input tokens are not blocks of {size}"
            self._refuse(batch, what, at, "give --block-tokens, or correct it")
        return Requests(arrival_s, taken, given, blocks, starts)

    def _seconds(self, batch: _Batch) -> NDArray[np.float64]:
        if self.trace.format == "azure":
            moments = _moments(batch.arrivals, batch.numbers, self.where)
            self.first = moments[0] if self.first is None else self.first
            found = (moments - self.first).astype(np.int64) / 1e9
        else:
            times = _numbers(batch.arrivals, batch.numbers, "the time of arrival", self.where)
            times = times / 1e3 if self.trace.format == "mooncake" else times
            if (wild := ~((times >= 0) & (times <= MAX_SECONDS))).any():
                at = int(np.argmax(wild))
                self._refuse(batch, f"arrives at {times[at]:.12g} s", at, f"times are from 0 to {MAX_SECONDS:g} s")
            self.first = times[0] if self.first is None else self.first
            found = times - self.first
        back = np.diff(found, prepend=self.last) < 0
        if back.any():
            self._refuse(batch, "arrives before the request above it", int(np.argmax(back)), "sort the file by time")
        self.last = float(found[-1])
        return np.asarray(found, dtype=np.float64)

    def _tokens(self, values: list[Any], numbers: list[int], what: str, least: int) -> NDArray[np.int64]:
        found = _numbers(values, numbers, what, self.where)
        wrong = ~((found >= least) & (found <= MAX_TOKENS) & (found == np.floor(found)))
        if wrong.any():
            at = int(np.argmax(wrong))
            mend = f"a request has {least} to {MAX_TOKENS}, in whole numbers"
            raise InputError(f"line {numbers[at]}: {found[at]:.12g} {what}", where=self.where, mend=mend)
        return found.astype(np.int64)

    def _refuse(self, batch: _Batch, what: str, at: int, mend: str = "correct it") -> NoReturn:
        raise InputError(f"line {batch.numbers[at]}: {what}", where=self.where, mend=mend)


def _json_rows(path: Path) -> Iterator[Row]:
    decode = json.JSONDecoder(parse_constant=_no_constant).decode
    for number, line in lines_of(path):
        try:
            found = decode(line)
            if type(found) is not dict:
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            reason = str(error)[:80]
            raise InputError(f"line {number} is not a JSON object ({reason})", where=str(path), mend="correct it") from None
        try:
            arrival, taken, given = (found[key] for key in _KEYS)
            hashes = found[_HASHES]
        except KeyError as error:
            raise InputError(f"line {number} has no {error.args[0]}", where=str(path), mend="add it") from None
        if type(hashes) is not list:
            raise InputError(f"line {number}: hash_ids is not a list", where=str(path), mend="write [1, 2, …]")
        if not all(type(value) is int for value in hashes):
            raise InputError(f"line {number}: hash_ids are not all whole numbers", where=str(path), mend="write [1, 2, …]")
        for value in (arrival, taken, given):
            if type(value) not in (int, float):
                what = f"line {number}: {', '.join(_KEYS)} are not all numbers"
                raise InputError(what, where=str(path), mend="correct it")
        yield number, arrival, taken, given, hashes


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _csv_rows(path: Path, form: Format) -> Iterator[Row]:
    lines = lines_of(path)
    line = 0

    def texts() -> Iterator[str]:
        nonlocal line
        for number, text in lines:
            line = number
            yield text

    reader = csv.reader(texts(), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        at = []
        for name in _COLUMNS[form]:
            if header.count(name) != 1:
                what = f"line {line}: the column {name} is " + ("there twice" if name in header else "missing")
                raise InputError(what, where=str(path), mend="write a header with " + ",".join(_COLUMNS[form]))
            at.append(header.index(name))
        hashed = header.index(_HASHES) if form == "csv" and _HASHES in header else None
        arrival, taken, given = at
        for cells in reader:
            if len(cells) != len(header):
                what = f"line {line} has {len(cells)} columns and the header {len(header)}"
                raise InputError(what, where=str(path), mend="correct it")
            hashes = None
            if hashed is not None:
                try:
                    hashes = [int(part) for part in cells[hashed].split()]
                except ValueError:
                    what = f"line {line}: hash_ids are not all whole numbers"
                    raise InputError(what, where=str(path), mend="write 1 2 …") from None
            yield line, cells[arrival], cells[taken], cells[given], hashes
    except csv.Error as error:
        raise InputError(f"line {line} is not CSV ({error})", where=str(path), mend="correct it") from None


def _numbers(values: list[Any], numbers: list[int], what: str, where: str) -> NDArray[np.float64]:
    """The values as floats; the first that is none by its line. NaN is refused here, infinity by who bounds them."""
    try:
        found = np.array(values, dtype=np.float64)
    except (ValueError, OverflowError):
        at = next(i for i, value in enumerate(values) if not _is_number(value))
        given = str(values[at])[:32] if isinstance(values[at], str) else "a number that is too large"
        raise InputError(f"line {numbers[at]}: {what} is {given!r}", where=where, mend="write a number") from None
    if (wrong := np.isnan(found)).any():
        raise InputError(f"line {numbers[int(np.argmax(wrong))]}: {what} is NaN", where=where, mend="write a number")
    return found


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, OverflowError):
        return False
    return True


def _moments(values: list[str], numbers: list[int], where: str) -> NDArray[Any]:
    """Times as Azure writes them, as ``datetime64[ns]``."""
    texts = [value.strip().removesuffix("+00:00") for value in values]
    for at, text in enumerate(texts):
        if not _MOMENT.fullmatch(text):
            raise _no_moment(values[at], numbers[at], where)
    try:
        return np.array(texts, dtype="M8[ns]")
    except ValueError:
        for at, text in enumerate(texts):
            try:
                np.datetime64(text, "ns")
            except ValueError:
                raise _no_moment(values[at], numbers[at], where) from None
        raise


def _no_moment(value: str, number: int, where: str) -> InputError:
    what = f"line {number}: {value[:40]!r} is no time"
    return InputError(what, where=where, mend="write 2023-11-16 18:17:03.9799600")


def _first_wide(batch: _Batch) -> int:
    """Index of the first request with a hash beyond 64 bits."""
    wide = next(i for i, value in enumerate(batch.hashes) if not -(2**63) <= value < 2**63)
    return next(i for i, end in enumerate(batch.starts[1:]) if wide < end)
