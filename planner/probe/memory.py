"""Memory: bytes/s by threads, bytes/s at which products stream their weights, and the latency of a dependent read.

Threads read slices of one array far larger than the caches; numpy lets go of the interpreter meanwhile. Latency is that of a
chase through an array, each element naming the next, less that of the same chase through 16 KB, which leaves what memory adds
to the interpreter's own time.
"""

from __future__ import annotations

from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from planner.probe.clock import Spread, spread_of, timed
from planner.probe.limits import memory_bound
from planner.probe.products import SIDE, Matrix, product

CACHE_LINE = 64
STEPS = 100_000
"""Of a chase."""
CHUNK = 2**20
"""Elements of a cycle made at a time."""


@dataclass(frozen=True)
class Memory:
    """Bytes/s and seconds; ``streams``: bytes/s of weights multiplied with one row, from memory."""

    reads: tuple[tuple[int, Spread], ...]
    writes: tuple[tuple[int, Spread], ...]
    """By threads; a copy moves as many bytes in as out, of which those written count."""
    streams: Spread
    latency: Spread
    startup: Spread
    """Of one call of numpy."""
    usable: int
    """Bytes free before anything was measured."""
    bound: str = "what the machine has free"
    """What says so."""


def measure_memory(threads: int, *, array_bytes: int, runs: int) -> Memory:
    """The memory as up to ``threads`` threads see it; twice ``array_bytes`` of it are taken at most."""
    bound = memory_bound()
    reads, writes, streams = _rates(threads, array_bytes, runs)
    latency = measure_latency(array_bytes, runs)
    small = np.zeros(16, dtype=np.float32)
    call = timed(lambda: [np.add(small, small, out=small) for _ in range(1000)], runs, 0.5).scaled(1e-3)
    return Memory(tuple(reads), tuple(writes), streams, latency, call, int(bound.value), bound.said)


def _rates(threads: int, array_bytes: int, runs: int) -> tuple[list[tuple[int, Spread]], list[tuple[int, Spread]], Spread]:
    """Bytes/s read and written by threads, and of weights times one row; both arrays are given back at the end."""
    source = np.ones(array_bytes // 4, dtype=np.float32)
    target = np.empty_like(source)
    reads: list[tuple[int, Spread]] = []
    writes: list[tuple[int, Spread]] = []
    counts = sorted({2**n for n in range(threads.bit_length()) if 2**n <= threads} | {threads})
    for count in counts:
        with ThreadPoolExecutor(count) as pool:
            parts, others = np.array_split(source, count), np.array_split(target, count)
            for found, work in ((reads, partial(pool.map, np.max, parts)), (writes, partial(pool.map, np.copyto, others, parts))):
                found.append((count, timed(lambda work=work: list(work()), runs, 1.5).inverse(source.nbytes)))  # type: ignore[misc]
    matrices = source[: len(source) // SIDE**2 * SIDE**2].reshape(-1, SIDE, SIDE)
    return reads, writes, timed(lambda: _stream(matrices), runs, 1.5).inverse(matrices.nbytes)


def _stream(matrices: Matrix) -> None:
    row = np.full((1, SIDE), 0.5, dtype=np.float32)
    out = np.empty((1, SIDE), dtype=np.float32)
    for weights in matrices:
        product(row, weights, out)


def measure_latency(array_bytes: int, runs: int) -> Spread:
    """Seconds of a read that waits for the one before it."""
    near = _chase(_cycle(16 * 1024), runs)
    far = _chase(_cycle(array_bytes), runs)
    least = min(near)
    return spread_of([max(each - least, 1e-10) for each in far])


def _cycle(size: int) -> array[int]:
    """Elements that lead through all of about ``size`` bytes in one cycle, in an order that no prefetcher foresees.

    ``next = a i + c mod 2^n`` has full period for odd c and a = 1 mod 4 (Hull and Dobell).
    """
    count = 1 << max(size // 8, 2).bit_length() - 1
    found = array("Q", bytes(8)) * count
    following = np.frombuffer(found, dtype=np.uint64)
    for start in range(0, count, CHUNK):
        part = following[start : start + CHUNK]
        part[:] = np.arange(start, start + len(part), dtype=np.uint64)
        part *= np.uint64(6364136223846793005)
        part += np.uint64(1442695040888963407)
        part &= np.uint64(count - 1)
    return found


def _chase(order: array[int], runs: int) -> list[float]:
    from time import perf_counter

    found, at = [], 0
    for _ in range(runs):
        start = perf_counter()
        for _ in range(STEPS):
            at = order[at]
        found.append((perf_counter() - start) / STEPS)
    return found
