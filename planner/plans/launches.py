"""A pass that reads files on its way: no captured graph replays it, so the host issues its kernels one after another.

What a decode step fetches on demand from a disk is read by the host when the pass has come so far. Engines replay a decode step
from a graph captured once, which cannot wait for a file; with such reads every block takes what the host needs to issue its
kernels (``issue`` of the runtime, the block's floor at least), and the step at least the sum, whatever the devices do meanwhile:
``T >= share * (step + hop + sum repeat * issue)`` for each item that is fetched from a disk.
With all of an item there that is the step's time; below, it is in proportion, which is on the optimistic side. Rows that are
gathered before the pass, weights streamed in the order of the layers, and host memory, which kernels read themselves, leave the
graph whole. A prefill pass is long and of any length, and engines capture none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from planner.performance.passes import PassTimes
from planner.performance.rates import Rates
from planner.plans.window_items import Item

LAUNCHES = "launches"


def launch_rows(
    rates: Rates, passes: Mapping[str, PassTimes], items: Sequence[Item], fetched: Mapping[tuple[int, int], Mapping[int, None]]
) -> Iterator[tuple[int, str, str, dict[int, float]]]:
    """``(stage, phase, name, milliseconds of the pass by column)``; ``fetched``: the columns by which each ``(stage, item)`` is
    fetched from a disk."""
    step = passes.get("decode")
    if step is None or not rates.issue:
        return
    issue = [sum(block.issue for block in blocks) for blocks in step.windows]
    fixed = float(step.step[0] + step.hop[0])
    for (stage, number), columns in fetched.items():
        item = items[number]
        if not item.read_in("decode") or not step.repeats[stage][item.window]:
            continue
        seconds = fixed + sum(repeat * each for repeat, each in zip(step.repeats[stage], issue, strict=True))
        yield stage, "decode", f"{LAUNCHES} for {item.window}/{item.name}", dict.fromkeys(columns, seconds * 1e3)


def resource_of(row: str) -> str:
    """What a row of a pass is bound by."""
    return LAUNCHES if row.startswith(f"{LAUNCHES} for ") else row
