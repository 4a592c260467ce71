"""A decode step in numpy, with random weights that lie where they were put: in memory, or on disk behind direct reads.

Experts on disk are read when the router has named them; the dense weights of the next layer come while this one runs; the rows
of tables, which the tokens alone name, come from the start of the step. Every sequence keeps ``context`` entries of cache: each
step overwrites one. Which token follows is drawn, not sampled: random weights would soon repeat themselves. The router is
balanced, as trained ones are: each expert's mean score is taken off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.probe.clock import Spread, spread_of
from planner.probe.disk import BLOCK, GRANULE, Scratch, aligned, check_room, rounded, scratch
from planner.probe.limits import memory_bound
from planner.probe.products import Matrix, product
from planner.probe.spec import FLOAT, Spec

READERS, ROWS_A_READER = 8, 16
"""Threads that read rows of tables at most, and how many rows are worth one."""
OPERATORS = ("attention", "experts", "tables", "head and rest", "waiting for disk")
MOST_OF_MEMORY = 0.8
"""Of what is free: the rest is for buffers, and for others."""
WARM = 2
PARTS = 5
Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Measured:
    """Seconds of a decode step, and of each operator in it, over ``steps`` steps; ``parts``: the means of stretches of them."""

    step: Spread
    operators: dict[str, float]
    steps: int = 0
    parts: tuple[float, ...] = ()

    def joined(self, other: Measured) -> Measured:
        """This run and another of the same model as one."""
        parts = (*self.parts, *other.parts)
        operators = {name: (self.operators[name] + other.operators[name]) / 2.0 for name in OPERATORS}
        return Measured(spread_of(list(parts)), operators, self.steps + other.steps, parts)


class Clock:
    """Seconds by operator: what runs from one ``to`` to the next belongs to the operator named first."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(OPERATORS, 0.0)
        self._name, self._since = OPERATORS[3], time.perf_counter()

    def to(self, name: str) -> None:
        """From here on time is that of ``name``."""
        now = time.perf_counter()
        self.seconds[self._name] += now - self._since
        self._name, self._since = name, now


class Decoder:
    """One model with its weights; ``step`` runs one decode step of its whole batch."""

    def __init__(self, spec: Spec, file: Scratch | None, noise: Matrix) -> None:
        self.spec, self.file, self._noise = spec, file, noise
        self._random = np.random.default_rng(0)
        h, d = spec.hidden, spec.head_dim
        self.embedding = self._filled(spec.vocabulary, h)
        self.head = self._filled(spec.vocabulary, h, 1)
        shape = (spec.layers, 2, spec.batch, spec.kv_heads, spec.context, d)
        self.cache = self._filled(math.prod(shape[:-1]), d).reshape(shape)
        held = spec.experts - spec.disk_experts
        self.experts = [self._filled(held, spec.expert_elements) for _ in range(spec.layers)]
        self.dense = [] if spec.dense_on_disk else [self._filled(1, spec.dense_elements, 2 + n)[0] for n in range(spec.layers)]
        self.tables: list[Matrix] = []
        self.projections: list[Matrix] = []
        if spec.table:
            rows = spec.table.rows * spec.table.hashed.rows_per_token
            for _ in spec.table.layers:
                self.projections.append(self._filled(2 * h, spec.table.dim))
                if not spec.table_on_disk:
                    self.tables.append(self._filled(rows, spec.table.width))
        self._lay_out()
        self.recent = self._random.integers(0, spec.vocabulary, (8, spec.batch))
        self._expert_buffer = aligned(rounded(FLOAT * spec.expert_elements))
        self._dense_buffers = [aligned(rounded(FLOAT * spec.dense_elements)) for _ in range(2)] if spec.dense_on_disk else []
        self._bias = np.zeros((spec.layers, spec.experts), dtype=np.float32)
        self._seen = np.zeros(spec.layers)
        self._stream = ThreadPoolExecutor(1)
        self._rows = ThreadPoolExecutor(READERS)
        self._position, self._turn = 0, 0
        self._coming = self._fetch_dense(0) if spec.dense_on_disk else None

    def close(self) -> None:
        """End the reading threads."""
        self._stream.shutdown(cancel_futures=True)
        self._rows.shutdown(cancel_futures=True)

    def _filled(self, rows: int, columns: int, turn: int = 0) -> Matrix:
        """Memory of its own, full of noise that starts elsewhere at each ``turn``."""
        found = np.empty((rows, columns), dtype=np.float32)
        flat, noise = found.reshape(-1), np.roll(self._noise, turn * 48_611)
        for start in range(0, flat.size, noise.size):
            part = flat[start : start + noise.size]
            part[:] = noise[: part.size]
        return found

    def _lay_out(self) -> None:
        """Offsets on disk: of each layer's experts and dense weights, and of tables."""
        spec, at = self.spec, 0
        self._expert_at, self._dense_at, self._table_at = [], [], []
        for _ in range(spec.layers):
            self._expert_at.append(at)
            at += spec.disk_experts * rounded(FLOAT * spec.expert_elements)
            self._dense_at.append(at)
            at += rounded(FLOAT * spec.dense_elements) if spec.dense_on_disk else 0
        for _ in spec.table.layers if spec.table and spec.table_on_disk else ():
            self._table_at.append(at)
            at += rounded(FLOAT * spec.table_elements)

    def step(self, clock: Clock) -> Indices:
        """The tokens that follow, (batch,)."""
        spec = self.spec
        clock.to("head and rest")
        tokens = self._random.integers(0, spec.vocabulary, spec.batch)
        self.recent = np.roll(self.recent, 1, axis=0)
        self.recent[0] = tokens
        rows = self._name_rows(clock)
        clock.to("head and rest")
        x = self.embedding[tokens]
        for layer in range(spec.layers):
            if spec.table and layer in spec.table.layers:
                x = self._table(x, spec.table.layers.index(layer), rows, clock)
            weights = self._dense_of(layer, clock)
            clock.to("attention")
            x = self._attention(x, layer, weights)
            clock.to("experts")
            x = self._experts(x, layer, weights, clock)
        clock.to("head and rest")
        logits = product(_norm(x), self.head)
        self._position = (self._position + 1) % spec.context
        found = np.argmax(logits, axis=1)
        clock.to("head and rest")
        return np.asarray(found)

    # -- dense weights ----------------------------------------------------------------------------------------------
    def _fetch_dense(self, layer: int) -> Future[None]:
        assert self.file is not None
        return self._stream.submit(self.file.read, self._dense_buffers[self._turn], self._dense_at[layer])

    def _dense_of(self, layer: int, clock: Clock) -> Matrix:
        """The layer's weights; from disk those of the next layer, after the last of the first, come meanwhile."""
        if self._coming is None:
            return np.asarray(self.dense[layer])
        clock.to("waiting for disk")
        self._coming.result()
        here = self._dense_buffers[self._turn]
        self._turn = 1 - self._turn
        self._coming = self._fetch_dense((layer + 1) % self.spec.layers)
        return np.frombuffer(here, dtype=np.float32)[: self.spec.dense_elements]

    # -- attention --------------------------------------------------------------------------------------------------
    def _attention(self, x: Matrix, layer: int, weights: Matrix) -> Matrix:
        spec = self.spec
        h, d, batch, groups = spec.hidden, spec.head_dim, spec.batch, spec.heads // spec.kv_heads
        wide, narrow = spec.heads * d, spec.kv_heads * d
        mixed = product(_norm(x), weights[: (wide + 2 * narrow) * h].reshape(-1, h))
        query = mixed[:, :wide].reshape(batch, spec.kv_heads, groups, d)
        keys, values = self.cache[layer]
        keys[:, :, self._position] = mixed[:, wide : wide + narrow].reshape(batch, spec.kv_heads, d)
        values[:, :, self._position] = mixed[:, wide + narrow :].reshape(batch, spec.kv_heads, d)
        scores = np.matmul(query, keys.swapaxes(2, 3))
        scores *= d**-0.5
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        seen = np.matmul(scores, values).reshape(batch, wide)
        start = (wide + 2 * narrow) * h
        return np.asarray(x + product(seen, weights[start : start + wide * h].reshape(h, wide)))

    # -- experts ----------------------------------------------------------------------------------------------------
    def _experts(self, x: Matrix, layer: int, weights: Matrix, clock: Clock) -> Matrix:
        spec = self.spec
        normed = _norm(x)
        router = weights[-spec.experts * spec.hidden :].reshape(spec.experts, spec.hidden)
        logits = product(normed, router)
        self._seen[layer] += len(logits)
        self._bias[layer] += (logits.sum(axis=0) - len(logits) * self._bias[layer]) / self._seen[layer]
        logits -= self._bias[layer]
        chosen = np.argpartition(logits, -spec.active, axis=1)[:, -spec.active :]
        gates = np.take_along_axis(logits, chosen, axis=1)
        gates = np.exp(gates - gates.max(axis=1, keepdims=True))
        gates /= gates.sum(axis=1, keepdims=True)
        out = x.copy()
        split = 2 * spec.inner * spec.hidden
        for expert in np.unique(chosen):
            rows, places = np.nonzero(chosen == expert)
            flat = self._expert(layer, int(expert), clock)
            both = product(normed[rows], flat[:split].reshape(2 * spec.inner, spec.hidden))
            gate, up = both[:, : spec.inner], both[:, spec.inner :]
            inner = gate / (1.0 + np.exp(-gate)) * up
            out[rows] += product(inner, flat[split:].reshape(spec.hidden, spec.inner)) * gates[rows, places, None]
        return out

    def _expert(self, layer: int, expert: int, clock: Clock) -> Matrix:
        below = self.spec.disk_experts
        if expert >= below:
            return np.asarray(self.experts[layer][expert - below])
        assert self.file is not None
        clock.to("waiting for disk")
        self.file.read(self._expert_buffer, self._expert_at[layer] + expert * len(self._expert_buffer))
        clock.to("experts")
        return np.frombuffer(self._expert_buffer, dtype=np.float32)[: self.spec.expert_elements]

    # -- tables -----------------------------------------------------------------------------------------------------
    def _name_rows(self, clock: Clock) -> list[tuple[Indices, list[Future[Matrix]]]]:
        """Of each layer with tables: the rows that the last tokens name, (batch x rows a token), and reads under way."""
        table = self.spec.table
        if table is None:
            return []
        clock.to("tables")
        found = []
        for number in range(len(table.layers)):
            columns: list[Indices] = []
            for order in table.ngrams:
                mixed = np.zeros(self.spec.batch, dtype=np.int64)
                for back in range(order):
                    mixed = mixed * 1_000_003 + self.recent[back] + number
                for head in range(table.heads):
                    columns.append((mixed * (2 * head + 1) ^ (mixed >> 7 + head)) % table.rows + len(columns) * table.rows)
            rows = np.stack(columns, axis=1).reshape(-1)
            reads = []
            if self.spec.table_on_disk:
                parts = np.array_split(rows, min(READERS, -(-len(rows) // ROWS_A_READER)))
                reads = [self._rows.submit(self._read_rows, number, part) for part in parts]
            found.append((rows, reads))
        return found

    def _read_rows(self, number: int, rows: Indices) -> Matrix:
        assert self.file is not None and self.spec.table is not None
        width = self.spec.table.width
        found = np.empty((len(rows), width), dtype=np.float32)
        buffer = aligned(GRANULE)
        page = np.frombuffer(buffer, dtype=np.float32).reshape(-1, width)
        for at, row in enumerate(rows.tolist()):
            start = self._table_at[number] + row * width * FLOAT
            self.file.read(buffer, start // GRANULE * GRANULE)
            found[at] = page[start % GRANULE // (width * FLOAT)]
        return found

    def _table(self, x: Matrix, number: int, rows: list[tuple[Indices, list[Future[Matrix]]]], clock: Clock) -> Matrix:
        assert self.spec.table is not None
        named, reads = rows[number]
        if reads:
            clock.to("waiting for disk")
            found = np.concatenate([read.result() for read in reads])
            clock.to("tables")
        else:
            clock.to("tables")
            found = self.tables[number][named]
        hidden = self.spec.hidden
        both = product(found.reshape(self.spec.batch, self.spec.table.dim), self.projections[number])
        match = np.sum(_norm(x) * _norm(both[:, :hidden]), axis=1, keepdims=True) / math.sqrt(hidden)
        return np.asarray(x + both[:, hidden:] / (1.0 + np.exp(-match)))


def _norm(x: Matrix) -> Matrix:
    return np.asarray(x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + 1e-6))


def _noise() -> Matrix:
    return (np.random.default_rng(1).standard_normal(BLOCK // FLOAT, dtype=np.float32) * np.float32(0.02)).astype(np.float32)


def _scratch_bytes(spec: Spec) -> int:
    """Of the file that holds what lies on disk, each tensor from a granule on; 0 where nothing does."""
    return spec.disk_bytes + GRANULE * (2 * spec.layers * (spec.experts + 1) + 8) if spec.disk_bytes else 0


def check_fits(spec: Spec, folder: Path | None) -> None:
    """``InputError`` where memory or disk has no room for the model."""
    bound = memory_bound()
    if spec.memory_bytes > MOST_OF_MEMORY * bound.value:
        free = f"{bound.value / 1e9:.2f} GB is free ({bound.said})"
        what = f"{spec.id} {spec.label} takes {spec.memory_bytes / 1e9:.2f} GB of memory, {free}"
        raise InputError(what, where="--run", mend="make it smaller")
    if spec.disk_bytes:
        if folder is None:
            raise InputError("is needed: some of the model lies on disk", where="--disk", mend="name a folder")
        check_room(folder, _scratch_bytes(spec))


@contextmanager
def decoder(spec: Spec, folder: Path | None) -> Iterator[Decoder]:
    """The model with its weights in place; ``InputError`` where memory or disk has no room for them."""
    check_fits(spec, folder)
    noise = _noise()
    with ExitStack() as stack:
        file = None
        if spec.disk_bytes and folder is not None:
            file = stack.enter_context(scratch(folder, _scratch_bytes(spec), lambda offset: noise.data.cast("B")))
        found = Decoder(spec, file, noise)
        stack.callback(found.close)
        yield found


def run(spec: Spec, folder: Path | None, *, steps: int, limit_s: float) -> Measured:
    """Up to ``steps`` decode steps, ``PARTS`` at least, within about ``limit_s``.

    Which experts a step wakes is chance, so means are what a prediction is of: the run is cut into ``PARTS``, and the median of
    their means counts.
    """
    times: list[float] = []
    each: list[dict[str, float]] = []
    with decoder(spec, folder) as model:
        for _ in range(WARM):
            model.step(Clock())
        ends = time.perf_counter() + limit_s
        while len(times) < steps and (len(times) < PARTS or time.perf_counter() < ends):
            clock = Clock()
            start = time.perf_counter()
            model.step(clock)
            times.append(time.perf_counter() - start)
            each.append(clock.seconds)
    operators = {name: float(np.median(_means([row[name] for row in each]))) for name in OPERATORS}
    parts = _means(times)
    return Measured(spread_of(parts), operators, len(times), tuple(parts))


def _means(values: list[float]) -> list[float]:
    """The means of ``PARTS`` runs of equal length, one after another."""
    return [float(np.mean(part)) for part in np.array_split(np.array(values), PARTS)]
