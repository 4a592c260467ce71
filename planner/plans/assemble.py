"""From a decision to the plan: every number of the contract, computed from the embedded inputs and the decision alone.

``verify`` calls the same function on the decision it reads back, so a number that does not follow is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from planner.plans.context import Context, at_value, at_variant
from planner.plans.cost import cost_of
from planner.plans.decision import Decision, PoolDecision
from planner.plans.describe import explanation_of
from planner.plans.experts import expert_rows
from planner.plans.inputs import Inputs, Options, Variant, with_weight_dtype
from planner.plans.intervals import perturbed
from planner.plans.levers import lever_rows, uncertainty_rows
from planner.plans.numbers import canonical, relative_gap
from planner.plans.operate import Operation, operate
from planner.plans.pareto import UNITS_OF, Front, front_data
from planner.plans.placement import memory_summary, placement_rows
from planner.plans.prediction import prediction_of
from planner.plans.prefix import as_asked
from planner.plans.prefix_rows import prefix_rows
from planner.plans.provenance import provenance_of
from planner.plans.resilience import resilience_rows
from planner.plans.robust import Served, contexts_of
from planner.plans.sensitivity import bottleneck_rows, phase_parts, shadow_price_rows
from planner.plans.space import Space, configuration_count, declare_space
from planner.plans.states import PoolState
from planner.plans.transition import Transition, transition_data
from planner.plans.worth import blended_usd, operation_objective
from planner.quantities import round12
from planner.version import CATALOGUE_VERSION, __version__
from planner.workload import Workload

SCHEMA_VERSION = 1
UNCALIBRATED = "none: class defaults of the runtime profile"


@dataclass(frozen=True)
class Certificate:
    """What the search contributes: the bound in the objective's printed unit, nodes closed by a placement, why it stopped."""

    bound: float
    nodes: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None


def assemble(
    context: Context,
    decision: Decision,
    certificate: Certificate,
    least: Decision | None,
    front: Front | None = None,
    transition: Transition | None = None,
    robust: Sequence[Served] = (),
) -> dict[str, Any]:
    """The plan as canonical data. ``least``: the decision of least TPOT on this hardware, if one was found; ``robust``: every
    workload of a set, ``decision`` that of the inputs' own."""
    operation = operate(context, decision)
    inputs = context.inputs
    usual = at_value(context)
    expected = operation if usual is context else operate(usual, decision, operation.placed)
    others = perturbed(usual, decision, expected)
    workload = inputs.workload
    spaces = declare_spaces(inputs, context)
    plan: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": inputs.model.id,
        "hardware": hardware_label(context, operation.units),
        "workload": workload.id,
        "objective": inputs.options.objective,
        "mode": operation.mode,
        "units": [
            {"hardware": pool.system.id, "units": count, "devices_per_unit": pool.unit_devices}
            for count, pool in zip(operation.units, context.pools.values(), strict=True)
        ],
        "pools": [_pool(context, state) for state in operation.pools],
        "idle_devices": operation.idle_devices,
        "prediction": prediction_of(usual, expected, others),
        "cost": cost_of(usual, expected, others),
        "certificate": _certificate(context, operation, certificate, spaces),
        "bottlenecks": [row for state in operation.pools for row in bottleneck_rows(state)],
        "shadow_prices": shadow_price_rows(context, decision, operation),
        "resilience": resilience_rows(context, decision, operation),
    }
    if usual is not context:
        plan["worst_case"] = _worst_case(context, operation)
    if robust:
        plan["robust"] = [_robust(*pair) for pair in zip(contexts_of(inputs, decision.variant), robust, strict=True)]
    least = decision if least == decision else least and replace(least, experts=())
    least_operation = operate(at_variant(context, least.variant), least) if least else None
    if decision.experts:
        states = {state.decision.phase: state for state in operation.pools}
        plan["experts"] = [expert_rows(states[one.phase], one, workload.experts) for one in decision.experts]
    if rows := prefix_rows(operation):
        plan["prefix_cache"] = rows
    plan["explanation"] = explanation_of(context, operation, least_operation, plan)
    plan["explanation"]["least_tpot"] = _least(context, least, least_operation)
    plan["explanation"]["levers"] = lever_rows(context, operation, plan["shadow_prices"])
    plan["explanation"]["uncertainty"] = uncertainty_rows(usual, expected, others)
    if front is not None:
        plan["pareto"] = front_data(context, front, short_pools)
    if transition is not None:
        plan["transition"] = transition_data(context, transition, short_pools)
    plan["provenance"] = provenance_of(inputs)
    plan["versions"] = {"planner": __version__, "catalogue": CATALOGUE_VERSION, "calibration": calibration_of(inputs)}
    plan = canonical(plan)
    asked = inputs.model_copy(update={"workload": as_asked(workload)})
    plan["inputs"] = asked.model_dump(mode="json", by_alias=True)
    return plan


def hardware_label(context: Context, units: tuple[int, ...]) -> str:
    """``NAME:N``, or ``prefill=NAME:N,decode=NAME:M``: what was given; where it is counted by the planner, the systems used."""
    names = []
    for count, (phase, pool) in zip(units, context.pools.items(), strict=True):
        used = -(-count * pool.unit_devices // pool.system.devices)
        systems = used if pool.selection.auto else pool.selection.count
        names.append(("" if phase == "mixed" else f"{phase}=") + f"{pool.system.id}:{systems}")
    return ",".join(names)


def _pool(context: Context, state: PoolState) -> dict[str, Any]:
    decision, pool = state.decision, state.pool
    return {
        "phase": decision.phase,
        "hardware": pool.system.id,
        "replicas": decision.replicas,
        "devices": decision.devices,
        "configuration": configuration(decision, context.variant),
        "dtypes": {
            "weights": _formats(state),
            "kv_layout": pool.pieces.kv_layout,
            "conversions": [{"from": source, "to": target} for source, target in sorted(pool.conversions.items())],
        },
        "placement": placement_rows(state),
        "memory": memory_summary(state),
        "step": {phase: phase_parts(state, phase) for phase in decision.phases},
        "placement_basis": decision.basis,
    }


def configuration(decision: PoolDecision, variant: Variant) -> dict[str, Any]:
    """The configuration object of a pool."""
    prefix: dict[str, Any] = {} if variant.prefix is None else {"prefix_cache_point": variant.prefix}
    if decision.prefix_rate is not None:
        prefix["prefix_cache_requests_per_s"] = decision.prefix_rate
    return {
        "tp": decision.tp,
        "pp": decision.pp,
        "ep": decision.ep,
        "attention_dp": decision.dp,
        "context_parallel": decision.cp,
        "batch_per_rank": decision.batch,
        "prefill_tokens_per_rank": decision.chunk,
        "mtp": variant.mtp,
        "redundant_experts": variant.redundant,
        "kv_dtype": variant.kv_dtype,
        "period_limit_ms": None if decision.period_s is None else decision.period_s * 1e3,
        **prefix,
    }


def _formats(state: PoolState) -> list[str]:
    model = with_weight_dtype(state.pool.inputs.model, state.pool.inputs.options.weight_dtype)
    return sorted(model.bytes_by_format(state.pool.conversions, draft=bool(state.pool.pieces.draft)))


def calibration_of(inputs: Inputs) -> str:
    """The calibration that the runtime's figures come from, with the digest of its points."""
    found = inputs.runtime.calibrated
    return UNCALIBRATED if found is None else found.calibration


def _worst_case(context: Context, operation: Operation) -> dict[str, Any]:
    return {
        "requests_per_s": operation.requests_per_s,
        "output_tokens_per_s": operation.requests_per_s * context.inputs.workload.output_tokens.mean,
        "ttft_ms": operation.ttft_s * 1e3,
        "tpot_ms": operation.tpot_s * 1e3,
        "concurrency": operation.concurrency,
        "usd_per_hour": operation.usd_per_hour,
        "usd_per_million_blended": blended_usd(context, operation.usd_per_hour, operation.requests_per_s),
    }


def _robust(context: Context, served: Served) -> dict[str, Any]:
    operation = served.operation or operate(context, served.decision)
    others = perturbed(context, served.decision, operation)
    cost = cost_of(context, operation, others)
    return {
        "workload": context.inputs.workload.id,
        "objective": operation_objective(context, operation),
        "prediction": prediction_of(context, operation, others),
        "usd_per_million": cost["usd_per_million"],
        "blended_interval": cost["blended_interval"],
        "pools": short_pools(served.decision),
        "nodes": dict(sorted(served.nodes.items())),
    }


def _meaning(options: Options, workload: Workload) -> str:
    """What a bound is proved for."""
    told = "proved against the model, not the machine"
    if options.headroom > 1.0:
        told += f", of full batches that serve {options.headroom:.4g} times the requests/s asked"
    if options.robust == "workloads":
        return f"{told}, for one deployment that serves each of the workloads, at a batch and placement of its own"
    if options.at_slow_end:
        return f"{told}, with every figure of profile and runtime at its slow end"
    if options.within_high:
        limits = (("TTFT", workload.ttft_s), ("TPOT", workload.tpot_s))
        said = " and ".join(f"{name} {seconds * 1e3:.6g} ms" for name, seconds in limits if seconds is not None)
        return (
            f"{told}, for limits of {said} on the expected value, which keep the 90th percentile of this plan within the limits "
            "asked; one that is slower but surer is not ruled out"
        )
    return told


_WORST = {None: "", "intervals": ", worst case", "workloads": ", worst workload"}


def _certificate(
    context: Context, operation: Operation, certificate: Certificate, spaces: dict[Variant, Space]
) -> dict[str, Any]:
    options = context.inputs.options
    objective = round12(operation_objective(context, operation))
    bound = round12(certificate.bound)
    gap = relative_gap(objective, bound)
    result: dict[str, Any] = {
        "objective": objective,
        "unit": UNITS_OF[options.objective] + _WORST[options.robust],
        "bound": bound,
        "gap": gap,
        "gap_allowed": options.gap,
        "proved": certificate.stopped is None and gap <= options.gap,
        "space": space_summary(spaces, context.inputs.workload),
        "nodes": dict(sorted(certificate.nodes.items())),
        "meaning": _meaning(options, context.inputs.workload),
    }
    if certificate.stopped:
        result["stopped"] = certificate.stopped
    return result


def declare_spaces(inputs: Inputs, context: Context) -> dict[Variant, Space]:
    """The declared space of every variant."""
    return {variant: declare_space(at_variant(context, variant)) for variant in inputs.variants}


def space_summary(spaces: dict[Variant, Space], workload: Workload | None = None) -> dict[str, Any]:
    """Every axis of the declared space with its values, and the counts; shapes are those of the first variant."""
    curve = None
    if workload is not None and workload.prefix_cache is not None:
        curve = [{"tokens_per_request_per_s": held, "hit_rate": hit} for held, hit in workload.prefix_cache.points]
    space = next(iter(spaces.values()))
    pools = {}
    for phase, pool in space.pools.items():
        pools[phase] = {
            "tp": sorted({int(v) for s in pool.shapes for v in s.tp}),
            "context_parallel": sorted({int(v) for s in pool.shapes for v in s.cp}),
            "attention_dp": sorted({int(v) for s in pool.shapes for v in s.dp}),
            "ep": sorted({int(v) for s in pool.shapes for v in s.ep}),
            "pp": [s.pp for s in pool.shapes],
            "batch_per_rank": {"from": pool.least_batch, "to": pool.batches, "step": 1},
            "prefill_tokens_per_rank": list(pool.chunks),
            "units": {"from": pool.least_units, "to": pool.units, "step": 1},
            "devices": pool.devices,
            "shapes": pool.shape_count,
            "rejected": pool.rejected,
        }
    counts = [configuration_count(one) for one in spaces.values()]
    count = {kind: sum(c[kind] for c in counts) for kind in counts[0]}
    return {
        "kv_dtype": list(dict.fromkeys(variant.kv_dtype for variant in spaces)),
        "mtp": list(dict.fromkeys(variant.mtp for variant in spaces)),
        "redundant_experts": list(dict.fromkeys(variant.redundant for variant in spaces)),
        **({} if curve is None else {"prefix_cache": curve}),
        "serving": [m for m, present in (("aggregated", space.aggregated), ("disaggregated", space.disaggregated)) if present],
        "pools": pools,
        "splits": len(space.splits),
        "configurations": {**count, "total": sum(count.values())},
    }


def _least(context: Context, least: Decision | None, operation: Operation | None) -> dict[str, Any] | None:
    if least is None or operation is None:
        return None
    return {
        "tpot_ms": operation.tpot_s * 1e3,
        "ttft_ms": operation.ttft_s * 1e3,
        "units": list(least.units),
        "devices_paid": operation.devices_paid,
        "pools": short_pools(least),
    }


def short_pools(decision: Decision) -> list[dict[str, Any]]:
    """What it takes to work a decision out again."""
    return [
        {
            "phase": pool.phase,
            "replicas": pool.replicas,
            "devices": pool.devices,
            "configuration": configuration(pool, decision.variant),
            "placement_basis": pool.basis,
        }
        for pool in decision.pools
    ]
