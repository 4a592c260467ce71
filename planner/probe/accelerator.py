"""A GPU through torch, where both are there: its memory, the host link either way, products, an all-reduce over several.

Nothing here runs without ``torch`` and a device; it has not been run on one yet, only with a stand-in (tests/test_probe.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from planner.probe.clock import Spread, spread_of

BYTES = 2**28
ROWS = (1, 8, 64, 512, 4096)
SIDE = 8192
DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Accelerator:
    """One GPU of ``count`` alike: bytes/s, FLOP/s and bytes. ``all_reduce``: bytes/s of the payload over all of them."""

    name: str
    count: int
    usable: int
    read: Spread
    to_device: Spread
    from_device: Spread
    products: dict[str, tuple[tuple[int, Spread], ...]]
    launch: Spread
    all_reduce: Spread | None = None
    names: tuple[str, ...] = ()
    """Of the kinds there are."""


def find_accelerator(runs: int) -> Accelerator | None:
    """The first GPU measured; ``None`` without torch or a GPU."""
    if find_spec("torch") is None:
        return None
    torch: Any = import_module("torch")
    if not torch.cuda.is_available():
        return None
    return measure_accelerator(torch, runs)


def _seconds(torch: Any, work: Callable[[], object], runs: int) -> Spread:
    found = []
    for number in range(runs + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if number:
            found.append(max(time.perf_counter() - start, 1e-9))
    return spread_of(found)


def measure_accelerator(torch: Any, runs: int) -> Accelerator:
    """Every figure of the first device of ``torch.cuda``."""
    device = torch.device("cuda", 0)
    here = torch.ones(BYTES, dtype=torch.uint8, device=device)
    there = torch.ones(BYTES, dtype=torch.uint8).pin_memory()
    target = torch.empty_like(here)
    read = _seconds(torch, lambda: target.copy_(here), runs).inverse(2.0 * BYTES)  # a copy reads and writes
    down = _seconds(torch, lambda: here.copy_(there, non_blocking=True), runs).inverse(BYTES)
    up = _seconds(torch, lambda: there.copy_(here, non_blocking=True), runs).inverse(BYTES)
    small = torch.zeros(1, device=device)
    launch = _seconds(torch, lambda: small.add_(1.0), runs)
    products: dict[str, tuple[tuple[int, Spread], ...]] = {}
    for name, kind in DTYPES.items():
        weights = torch.ones((SIDE, SIDE), dtype=getattr(torch, kind), device=device)
        rates = []
        for rows in ROWS:
            given = torch.ones((rows, SIDE), dtype=getattr(torch, kind), device=device)
            took = _seconds(torch, lambda given=given, weights=weights: given @ weights, runs)  # type: ignore[misc]
            rates.append((rows, took.inverse(2.0 * rows * SIDE * SIDE)))
        products[name] = tuple(rates)
    free, _ = torch.cuda.mem_get_info(0)
    count = int(torch.cuda.device_count())
    return Accelerator(
        str(torch.cuda.get_device_name(0)),
        count,
        int(free) + 2 * BYTES,
        read,
        down,
        up,
        products,
        launch,
        _all_reduce(torch, count, runs) if count > 1 else None,
        tuple(dict.fromkeys(str(torch.cuda.get_device_name(number)) for number in range(count))),
    )


def _all_reduce(torch: Any, count: int, runs: int) -> Spread | None:
    """The payload's bytes/s of one all-reduce over all devices of this process; ``None`` where torch has no NCCL."""
    try:
        parts = [torch.ones(BYTES // 4, device=f"cuda:{number}") for number in range(count)]
        return _seconds(torch, lambda: torch.cuda.nccl.all_reduce(parts), runs).inverse(BYTES)
    except (AttributeError, RuntimeError):
        return None
