"""What a deployment at work costs, what it is worth by the objective, and whether it keeps its limits."""

from __future__ import annotations

from dataclasses import dataclass

from planner.economics import StreamCost, stream_costs
from planner.plans.context import Context
from planner.plans.operate import Operation


def hit_flops_share(operation: Operation) -> float:
    """Share of a request's prefill FLOPs spent on attention to cached tokens (0 without hits)."""
    state = next(s for s in operation.pools if "prefill" in s.decision.phases)
    workload, pieces = state.pool.inputs.workload, state.pool.pieces
    if workload.hit_tokens <= 0.0:
        return 0.0
    linear = attention = 0.0
    for window in pieces.windows:
        for block in window.blocks:
            linear += window.layers * 2.0 * sum(g.parameters for g in block.gemms)
            if block.routed:
                linear += window.layers * 2.0 * block.routed.member_parameters * block.routed.active
            pairs = [t.per_pair for t in block.flops if "prefill" in t.phases]
            attention += window.layers * (min(pairs) if pairs else 0.0)
    hit = attention * workload.hit_tokens
    return hit / (linear + attention * (workload.hit_tokens + workload.miss_tokens / 2.0))


def costs(context: Context, operation: Operation) -> StreamCost:
    """USD per million tokens by stream at the context's utilisation; the whole deployment's hour is charged."""
    workload = context.inputs.workload
    tokens_per_hour = operation.requests_per_s * 3600.0 * context.utilisation
    return stream_costs(
        input_usd=operation.usd_per_hour * operation.input_share,
        output_usd=operation.usd_per_hour * (1.0 - operation.input_share),
        hit_tokens=workload.hit_tokens * tokens_per_hour,
        miss_tokens=workload.miss_tokens * tokens_per_hour,
        output_tokens=workload.output_tokens.mean * tokens_per_hour,
        allocation=context.inputs.options.allocation,
        hit_flops_share=hit_flops_share(operation),
    )


def blended_usd(context: Context, usd_per_hour: float, requests_per_s: float) -> float:
    """USD per million tokens over all tokens of a request."""
    workload = context.inputs.workload
    tokens = workload.input_tokens.mean + workload.output_tokens.mean
    return usd_per_hour / (requests_per_s * 3600.0 * context.utilisation * tokens) * 1e6


def objective_value(context: Context, *, usd_per_hour: float, devices_paid: float, requests_per_s: float, tpot_s: float) -> float:
    """The objective in its printed unit: USD per million tokens, output tokens/s per device paid for, or ms per token."""
    objective = context.inputs.options.objective
    if objective == "cost":
        return blended_usd(context, usd_per_hour, requests_per_s)
    if objective == "throughput":
        return requests_per_s * context.inputs.workload.output_tokens.mean / devices_paid
    return tpot_s * 1e3


def operation_objective(context: Context, operation: Operation) -> float:
    """The objective of an operation."""
    return objective_value(
        context,
        usd_per_hour=operation.usd_per_hour,
        devices_paid=operation.devices_paid,
        requests_per_s=operation.requests_per_s,
        tpot_s=operation.tpot_s,
    )


@dataclass(frozen=True)
class Check:
    """One limit: what it is, the value against it and whether it holds (to 1e-9 relative)."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the limit is met."""
        return self.value <= self.limit * (1.0 + 1e-9) + 1e-12


def checks(context: Context, operation: Operation) -> list[Check]:
    """Every limit on the deployment, service levels first."""
    workload, options = context.inputs.workload, context.inputs.options
    found = []
    if workload.ttft_s is not None:
        found.append(Check("service level TTFT", operation.ttft_s * 1e3, workload.ttft_s * 1e3, "ms"))
    if workload.tpot_s is not None:
        found.append(Check("service level TPOT", operation.tpot_s * 1e3, workload.tpot_s * 1e3, "ms"))
    if context.demand is not None:
        found.append(Check("demand", context.demand, operation.capacity_per_s, "requests/s"))
    if context.cap is not None:
        found.append(Check("concurrency", operation.concurrency, float(context.cap), "requests"))
    if options.max_usd_per_hour is not None:
        found.append(Check("money", operation.usd_per_hour, options.max_usd_per_hour, "USD/h"))
    if options.max_power_kw is not None:
        watts = sum(u * p.watts_per_unit for u, p in zip(operation.units, context.pools.values(), strict=True))
        found.append(Check("power", watts / 1e3, options.max_power_kw, "kW"))
    used: dict[int, int] = {}
    hardware = list(context.pools.values())
    for state in operation.pools:
        index = list(context.pools).index(state.decision.phase if context.separate else "mixed")
        used[index] = used.get(index, 0) + state.decision.devices
    for index, devices in used.items():
        bound = operation.units[index] * hardware[index].unit_devices - hardware[index].spare_devices
        found.append(Check(f"devices of {hardware[index].system.id}", devices, bound, "devices"))
        found.append(Check(f"units of {hardware[index].system.id}", operation.units[index], hardware[index].units, "units"))
        if options.devices is not None:
            spared = devices + hardware[index].spare_devices
            found.append(Check("--devices, spare ones included", spared, options.devices, "devices"))
    for state in operation.pools:
        program = state.problem.program
        load = program.matrix[:, : len(state.problem.choices)] @ state.shares
        for (stage, tier), number in state.problem.capacity_rows.items():
            name = f"capacity of {tier} in {state.decision.phase} stage {stage}"
            found.append(Check(name, float(load[number]), float(program.limit[number]), "GB"))
    return found
