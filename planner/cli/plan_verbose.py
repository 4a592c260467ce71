"""``planner plan --verbose``: what goes into the search, and what it counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.cli.common import say_file
from planner.cli.terminal import tell, terminal

if TYPE_CHECKING:
    from planner.plans.schema import Plan


def tell_inputs(call: dict[str, Any], hardware: str | None, folders: tuple[Path, ...]) -> None:
    """Names that were read, and the files that hardware was read from. ``call``: arguments of ``planner.plan``."""
    if not terminal().verbose:
        return
    tell(f"model {_name(call['model'])}, objective {call['objective']}")
    for phase, selection in (call["hardware"] or {}).items():
        system = selection.system
        count = "auto" if selection.auto else selection.count
        tell(f"{phase} pool: {count} x {system.id}, {system.devices} devices each, {system.status}")
    for part in (hardware or "").split(","):
        if part:
            say_file(part.rpartition("=")[2], "node", folders, always=True)
    for load in call["workload"]:
        limits = [f"{name} {value * 1e3:g} ms" for name, value in (("TTFT", load.ttft_s), ("TPOT", load.tpot_s)) if value]
        shape = f"{load.input_tokens.mean:g} tokens in, {load.output_tokens.mean:g} out, prefix hits {load.prefix_hit:.1%}"
        tell(f"workload {load.id}: {shape}, limits {', '.join(limits) or 'none'}")
    tell(f"runtime {_name(call['runtime'])}, prices {_name(call['prices'])}")


def _name(given: Any) -> str:
    return str(getattr(given, "id", given))


def tell_counts(plan: Plan) -> None:
    """What the search went through."""
    row = plan.certificate
    counts = row.space["configurations"]
    each = ", ".join(f"{kind} {number:,}" for kind, number in counts.items() if kind != "total")
    tell(f"space: {counts['total']:,} configurations ({each}); {len(row.nodes):,} cells closed by a placement")
    for phase, pool in row.space["pools"].items():
        left = ", ".join(f"{number:,} by {rule}" for rule, number in pool["rejected"].items())
        tell(f"{phase} pool: {pool['shapes']:,} parallelisms, left out beforehand: {left}")
    tell(f"calibration: {plan.versions['calibration']}; {len(plan.provenance['sources'])} sources")
