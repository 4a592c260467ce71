"""What remains of a deployment when one node, purchasable unit or system of it fails."""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Any

from planner.plans.context import Context
from planner.plans.decision import Decision
from planner.plans.operate import Operation, operate


def resilience_rows(context: Context, decision: Decision, operation: Operation) -> list[dict[str, Any]]:
    """One row per pool that may lose what ``spare_of`` names: instances lost and started again, and requests/s with each.

    Instances lie one after the other from the first device on, so ``d`` devices that fail together touch at most
    ``(d + s - gcd(d, s)) / s`` instances of ``s`` devices: one where an instance is larger, all it holds where ``s`` divides
    ``d``. A loss over two pools takes no more of either. What is left of the broken instances, and the devices that idle (spare
    or not), start as many again as they hold; an instance of whole nodes needs whole nodes.
    """
    options, rows = context.inputs.options, []
    shared = not context.separate
    for index, state in enumerate(operation.pools):
        system, size, replicas = state.pool.system, state.decision.instance_devices, state.decision.replicas
        failed = {"node": system.devices_per_node, "unit": system.purchasable_devices, "system": system.devices}[options.spare_of]
        lost = min((failed + size - gcd(failed, size)) // size, replicas)
        devices = operation.units[0 if shared else index] * state.pool.unit_devices
        used = sum(other.decision.devices for other in operation.pools) if shared else state.decision.devices
        free = max(devices - used + lost * size - failed, 0)
        if size > system.devices_per_node:
            free -= free % system.devices_per_node
        restarted = min(free // size, lost)
        served = []
        for running in (replicas - lost, replicas - lost + restarted):
            pools = tuple(replace(p, replicas=running) if i == index else p for i, p in enumerate(decision.pools))
            again = replace(decision, pools=pools)
            left = operate(context, again, operation.placed, known=operation.passes).capacity_per_s if running else 0.0
            served.append(min(left, operation.capacity_per_s))
        asked = operation.requests_per_s
        rows.append(
            {
                "pool": state.decision.phase,
                "fails": options.spare_of,
                "devices_lost": min(failed, devices),
                "instances": replicas,
                "instances_lost": lost,
                "instances_restarted": restarted,
                "requests_per_s": served[0],
                "requests_per_s_restarted": served[1],
                "share": min(served[0] / asked, 1.0),
                "share_restarted": min(served[1] / asked, 1.0),
            }
        )
    return rows
