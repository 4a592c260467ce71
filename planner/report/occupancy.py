"""What lies in which memory of a deployment: bytes of all devices of a pool, by memory and kind of content."""

from __future__ import annotations

from dataclasses import dataclass

from planner.plans.placement import memory_summary
from planner.report.study import Study

RESERVE, FREE = "reserve and buffers", "free"


@dataclass(frozen=True)
class Held:
    """``bytes`` of one kind in one memory of a pool; ``capacity``: of that memory, all devices of the pool together."""

    pool: str
    tier: str
    kind: str
    bytes: float
    capacity: float

    @property
    def share(self) -> float:
        """Of the memory's capacity."""
        return self.bytes / self.capacity if self.capacity else 0.0


def kind_of(item: str) -> str:
    """``KV cache`` of ``layers 0-2: KV cache: index``, ``routed experts`` of ``layer 3: routed experts, use class 1 of 4``."""
    parts = item.split(": ")
    kind = (parts[1] if len(parts) > 1 else parts[0]).partition(", ")[0]
    return {"replicated weights": "weights", "staging buffers": RESERVE}.get(kind, kind)


def occupancy_of(study: Study) -> list[Held]:
    """Rows by pool, memory (the device's own first) and kind (largest first); of its own also reserve and free room,
    last. Free room elsewhere is left out: it may be so much that nothing else would be seen."""
    found = []
    for state, pool in zip(study.operation.pools, study.plan.pools, strict=True):
        own = state.pool.rates.memory_id
        capacity = {own: state.pool.rates.memory_bytes * pool.devices}
        capacity |= {tier.id: tier.capacity * pool.devices for tier in state.pool.rates.tiers}
        summary = memory_summary(state)
        held: dict[str, dict[str, float]] = {own: {}}
        for row in pool.placement:
            kinds = held.setdefault(row.tier, {})
            kinds[kind_of(row.item)] = kinds.get(kind_of(row.item), 0.0) + row.bytes
        for tier, kinds in held.items():
            room = capacity.get(tier, sum(kinds.values()))
            reserve = kinds.pop(RESERVE, 0.0)
            rows = sorted(kinds.items(), key=lambda entry: (-entry[1], entry[0]))
            if tier == own:
                reserve += float(sum(summary["reserve_bytes"].values()) * pool.devices)
            rows.append((RESERVE, reserve))
            if tier == own:
                rows.append((FREE, max(room - sum(size for _, size in rows), 0.0)))
            found += [Held(pool.phase, tier, kind, size, room) for kind, size in rows if size > 0.0]
    return found
