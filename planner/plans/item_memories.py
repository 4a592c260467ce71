"""From memories and links to the arrays of an item problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.plans.item_bound import Array, Integers, ItemProblem


@dataclass(frozen=True)
class Memory:
    """A memory as the placed items see it, all its sharers together.

    ``seconds_per_byte`` and ``seconds_per_operation``: resource id -> seconds that one byte (one operation) takes of it.
    A half-duplex link is one resource of both directions, a full-duplex one two; a host memory that n devices share is a
    resource of n times its rate per device. ``latency_s`` is what one operation waits where nothing hides it.
    """

    id: str
    capacity: float
    seconds_per_byte: Mapping[str, float]
    seconds_per_operation: Mapping[str, float] = field(default_factory=dict)
    latency_s: float = 0.0


EXPOSED = "exposed"
"""The resource of a window's base and of what is fetched on demand."""


def tiered_problem(
    held: Array,
    read: Array,
    operations: Array,
    kind: Integers,
    window: Integers,
    gated: Sequence[bool],
    divisible: Sequence[bool],
    memories: Sequence[Memory],
    fixed: Mapping[str, Array],
    weight: Array,
    copies: Array | None = None,
) -> ItemProblem:
    """Items over memories, the first of them the device's own.

    ``held``, ``read`` [I] bytes; ``operations`` [I] random reads that this takes. Read from a lower memory, an item
    is streamed ahead (hidden; a gated kind's bytes whole, since the router has not chosen yet) or, if gated, fetched on demand:
    its time, bytes at the slowest resource and latency per operation, adds to the window's base. ``fixed`` gives [W] seconds
    per resource, ``EXPOSED`` among them.
    """
    own = next(iter(memories[0].seconds_per_byte))
    named = dict.fromkeys([EXPOSED, *(r for m in memories for r in (*m.seconds_per_byte, *m.seconds_per_operation)), *fixed])
    column = {name: number for number, name in enumerate(named)}
    choices = [(0, "resident")]
    for number in range(1, len(memories)):
        choices += [(number, "stream")] + ([(number, "fetch")] if any(gated) else [])
    seconds = np.zeros((len(gated), len(choices), 3, len(named)))
    allowed = np.ones((len(gated), len(choices)), dtype=bool)
    occupies = np.zeros((len(choices), len(memories)))
    for place, (number, mode) in enumerate(choices):
        memory = memories[number]
        occupies[place, number] = 1.0
        for group, on_demand in enumerate(gated):
            table = seconds[group, place]
            allowed[group, place] = mode != "fetch" or on_demand
            table[1, column[own]] = memories[0].seconds_per_byte[own]
            if mode == "resident":
                continue
            whole = mode == "stream" and on_demand
            moved = 0 if whole else 1
            table[moved, column[own]] += memories[0].seconds_per_byte[own]
            for name, value in memory.seconds_per_byte.items():
                table[moved, column[name]] += value
            for name, value in ({} if whole else memory.seconds_per_operation).items():
                table[2, column[name]] += value
            if mode == "fetch":
                table[1, column[EXPOSED]] += max(memory.seconds_per_byte.values())
                table[2, column[EXPOSED]] += memory.latency_s
    base = np.zeros((len(weight), len(named)))
    for name, values in fixed.items():
        base[:, column[name]] = values
    return ItemProblem(
        np.stack([held, read, operations]),
        kind,
        window,
        seconds,
        allowed,
        np.asarray(divisible, dtype=bool),
        occupies,
        np.array([m.capacity for m in memories], dtype=float),
        base,
        weight,
        tuple(f"{memories[number].id}:{mode}" for number, mode in choices),
        tuple(m.id for m in memories),
        tuple(named),
        copies,
    )
