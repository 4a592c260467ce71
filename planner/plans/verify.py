"""Verify a plan without the search and without a solver.

Every number outside the embedded inputs is recomputed from the inputs and the decision by the equations of the model;
every limit is checked; the placement's basis is checked to be an optimal vertex (a feasible point with no negative
reduced cost), and the gap against the bound. ``full`` also walks the whole declared space and refuses a bound that some
configuration undercuts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from planner.errors import InputError
from planner.plans.assemble import assemble
from planner.plans.bounds import DUAL_TOLERANCE
from planner.plans.constraints import kept
from planner.plans.context import Context, at_variant, build_context
from planner.plans.decision import Decision
from planner.plans.experts import maps_wanted
from planner.plans.inputs import Inputs
from planner.plans.intervals import within_high
from planner.plans.numbers import GAP_DECIMALS
from planner.plans.operate import Operation, operate
from planner.plans.pareto import GAP, LIMITS, front_violations
from planner.plans.read import certificate_of, decision_of, front_of, inputs_of, least_of, robust_of, transition_of
from planner.plans.robust import EACH, SAME, Served, contexts_of, robust_violations
from planner.plans.schema import Plan
from planner.plans.space import Space, declare_space
from planner.plans.states import PoolState
from planner.plans.transition import (
    CHOICE,
    ROWS,
    RULES,
    Transition,
    broken_pins,
    old_operation,
    restricted,
    rules_of,
    transition_violations,
)
from planner.plans.worth import checks

RELATIVE = 1e-9

EQUATIONS: tuple[tuple[str, str], ...] = (
    (r"schema_version|model|hardware|workload|objective|mode", "identity: the plan names its own inputs"),
    (r"units\..*|idle_devices", "devices: units x devices per unit = pools + idle devices"),
    (r"pools\.\d+\.(replicas|devices)", "devices: replicas x tp x attention_dp x pp"),
    (r"pools\.\d+\.configuration\..*", "configuration: what the plan was computed for"),
    (r"pools\.\d+\.placement\..*", "placement: bytes = item bytes x share x copies, shares sum to one"),
    (r"pools\.\d+\.memory\..*", "memory: weights + cache + staging + reserve + free = usable"),
    (r"pools\.\d+\.step\..*", "step: t = floor + max(compute, memory) + communication, summed over layers"),
    (r"pools\.\d+\..*", "pool: follows from inputs and configuration"),
    (r"prediction\..*\.(low|high)", "interval: log deviations of the uncertain figures in quadrature"),
    (r"prediction\.random_arrivals.*", "random arrivals: bulk service of passes, decode that shares its processor"),
    (r"prediction\.ttft_ms.*", "TTFT: passes + wait, of full batches or random arrivals"),
    (r"prediction\.tpot_ms.*|prediction\.tokens_per_s_per_user.*", "TPOT: decode step + prefill interference"),
    (r"prediction\..*", "throughput and concurrency: Little's law"),
    (r"cost\.usd_per_million\..*", "cost: tokens x price over streams = cost of the deployment"),
    (r"cost\.lines.*", "cost: the hour of pools, spare and idle devices by cause, summing to the deployment's"),
    (r"cost\.rents.*", "cost: the newest offer at or before the date, and the spread of those of half a year before it"),
    (r"cost\..*", "cost: hour = capital + electricity (or colocation) + upkeep, or rent"),
    (r"certificate\.(objective|unit)", "certificate: the objective of the chosen configuration"),
    (r"certificate\.(gap|bound|proved)", "certificate: gap = |objective - bound| / |objective|"),
    (r"certificate\.space\..*", "certificate: the declared space"),
    (r"certificate\.nodes.*", "certificate: an optimal basis closes the node"),
    (r"certificate\..*", "certificate"),
    (r"bottlenecks\..*", "bottlenecks: parts of the slowest stage's time, summing to one"),
    (r"shadow_prices\..*", "shadow price: dual of the placement, part of the time over the rate, or one step of it"),
    (r"resilience\..*", "resilience: instances lost, started again, and requests/s of those that run"),
    (r"worst_case.*", "worst case: every figure of profile and runtime at its slow end"),
    (r"explanation\.least_tpot.*", "least TPOT: the stated configuration reaches it"),
    (r"explanation\.tiers.*", "memories in use: capacity, time, energy and wear follow from the placement's shares"),
    (r"explanation\.unused_memories.*", "memories left empty: the objective of this configuration with an item moved there"),
    (r"explanation\..*", "explanation: computed from the plan's numbers"),
    (r"pareto\.points\.\d+\.tpot_limit_ms", LIMITS),
    (r"pareto\.points\.\d+\.(gap|bound)|pareto\.(proved|stopped)", GAP),
    (r"pareto\..*", "front: every number of a point follows from its configuration"),
    (r"robust\.\d+\.pools.*", SAME),
    (r"robust.*", EACH),
    (r"transition\.alternatives\.\d+\.(gap|bound)", RULES),
    (r"transition\.alternatives.*", ROWS),
    (r"transition\.(chosen|stopped)", CHOICE),
    (r"transition.*", "transition: bytes needed on a device and not there already, over its slowest link"),
    (r"experts\.\d+\.fullest_over_mean\..*", "experts: load of the fullest rank over the mean"),
    (r"experts\.\d+\.below\..*", "experts: the least used slots of a rank lie below, as many as the placement's share"),
    (r"experts\.\d+\.sha256", "experts: the map's fingerprint"),
    (
        r"experts.*",
        "experts: a map for every pool of several ranks; every expert has a slot, and its copies serve all its tokens",
    ),
    (r"prefix_cache.*", "prefix cache: tokens = tokens per request/s x requests/s, bytes as a sequence takes per token"),
    (r"provenance\..*", "provenance: the figures of the embedded inputs"),
    (r"versions\..*", "versions"),
)


@dataclass(frozen=True)
class Violation:
    """One broken equation: where, which, what follows from the inputs and what the plan says."""

    path: str
    equation: str
    expected: Any
    found: Any

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"path": self.path, "equation": self.equation, "expected": self.expected, "found": self.found}


def equation_of(path: str) -> str:
    """The name of the equation behind a path."""
    for pattern, name in EQUATIONS:
        if re.fullmatch(pattern, path) or re.fullmatch(pattern, f"{path}.0"):
            return name
    return "unknown entry"


def verify_plan(plan: Plan, where: str = "plan", *, full: bool = False) -> tuple[list[Violation], list[str]]:
    """``(violations, notices)``: no violation means that every printed number follows from the embedded inputs.

    Notices report installed profiles that differ from the embedded ones. ``InputError`` where the inputs themselves are invalid.
    """
    inputs = inputs_of(plan, where)
    try:
        decision, least, front = decision_of(plan, where), least_of(plan, where), front_of(plan, where)
        stated = [("", decision), *([("explanation.least_tpot.", least)] if least else [])]
        stated += [(f"pareto.points.{number}.", point.decision) for number, point in enumerate(front.points if front else ())]
        outside = [d.variant for _, d in stated if d.variant not in inputs.variants]
        if outside:
            asked = [variant.label for variant in inputs.variants]
            return [Violation("pools", "configuration: a variant of the space", asked, outside[0].label)], []
        context = build_context(inputs, decision.variant)
        contexts = {variant: at_variant(context, variant) for variant in {d.variant for _, d in stated}}
        spaces = {variant: declare_space(here) for variant, here in contexts.items()}
        violations = [
            replace(v, path=prefix + v.path)
            for prefix, d in stated
            for v in _shape_violations(contexts[d.variant], spaces[d.variant], d)
        ]
        if violations:
            return violations, []
        wanted, maps = maps_wanted(context, decision), [(one.phase, one.ranks) for one in decision.experts]
        if wanted != maps:
            return [Violation("experts", equation_of("experts"), wanted, maps)], []
        operations = [operate(contexts[d.variant], d) for _, d in stated]
        for (prefix, _), operation in zip(stated, operations, strict=True):
            violations += [replace(v, path=prefix + v.path) for v in _placements(operation)]
        if violations:
            return violations, []
        if front:
            front = replace(front, operations=tuple(operations[len(operations) - len(front.points) :]))
        transition = transition_of(plan, inputs, where)
        if transition:
            violations = _transition_violations(inputs, transition)
            if violations:
                return violations, []
        rows = robust_of(plan, decision, where)
        if inputs.workloads or rows:
            rows, violations = _robust_rows(inputs, decision, rows)
            if violations:
                return violations, []
        certificate = certificate_of(plan)
        if inputs.workloads:  # its nodes are those of the rows
            certificate = replace(certificate, nodes={})
        expected = assemble(context, decision, certificate, least, front, transition, rows)
    except InputError as error:
        if "experts" in error.where:
            return [Violation("experts", equation_of("experts"), "a map of this model's experts", str(error))], []
        return [
            Violation("pools", "configuration: what the plan was computed for", "a configuration of this space", str(error))
        ], []
    violations = _compare(expected, plan.to_data())
    violations += _limit_violations(context, operations[0])
    violations += _bound_violations(plan)
    violations += _high_violations(inputs, plan)
    if least:
        violations += _least_violations(contexts[least.variant], operations[1], operations[0].tpot_s, plan)
    if (front is None) != (inputs.options.pareto is None):
        violations.append(Violation("pareto", equation_of("pareto.points"), inputs.options.pareto, plan.pareto is not None))
    if front:
        violations += [Violation(*entry) for entry in front_violations(context, front)]
    if (transition is None) != (inputs.previous is None):
        violations.append(Violation("transition", RULES, inputs.previous is not None, plan.transition is not None))
    if transition:
        stated, bound = expected["transition"]["alternatives"], expected["certificate"]["bound"]
        violations += [Violation(*entry) for entry in transition_violations(context, decision, transition, stated, bound)]
    if full and not violations:
        from planner.plans.closure import space_violations

        violations += [Violation(*entry) for entry in space_violations(inputs, plan)]
    return violations, _notices(inputs)


def _shape_violations(context: Context, space: Space, decision: Decision) -> list[Violation]:
    """The chosen shapes must belong to the declared space."""
    found = []
    phases = [pool.phase for pool in decision.pools]
    wanted = ["mixed"] if len(phases) == 1 else ["prefill", "decode"]
    if phases != wanted:
        return [Violation("pools", "configuration: one mixed pool, or prefill then decode", wanted, phases)]
    if len(decision.units) != len(context.pools):
        return [Violation("units", "devices: one entry per kind of hardware", len(context.pools), len(decision.units))]
    found += _constraint_violations(context, space, decision)
    for index, pool in enumerate(decision.pools):
        declared = space.pools.get(pool.phase) or space.pools.get("mixed")
        path = f"pools.{index}.configuration"
        if declared is None or not any(
            s.pp == pool.pp and bool(((s.tp == pool.tp) & (s.cp == pool.cp) & (s.dp == pool.dp) & (s.ep == pool.ep)).any())
            for s in declared.shapes
        ):
            found.append(
                Violation(path, "configuration: divisibility, topology and runtime rules", "a shape of the space", str(pool))
            )
            continue
        decodes, prefills = pool.phase != "prefill", pool.phase != "decode"
        if not (declared.least_batch <= pool.batch <= declared.batches if decodes else pool.batch == 0):
            found.append(
                Violation(f"{path}.batch_per_rank", "configuration: batch within the space", declared.batches, pool.batch)
            )
        if pool.chunk not in declared.chunks if prefills else pool.chunk != 0:
            found.append(
                Violation(f"{path}.prefill_tokens_per_rank", "configuration: within the space", list(declared.chunks), pool.chunk)
            )
    return found


def _constraint_violations(context: Context, space: Space, decision: Decision) -> list[Violation]:
    """What constraints say of the deployment as a whole: how it serves, its units and how its devices are split."""
    constraints = context.inputs.options.constraints
    mode, present = ("aggregated", space.aggregated) if len(decision.pools) == 1 else ("disaggregated", space.disaggregated)
    if not present:
        return [Violation("mode", "configuration: serving within the space", "a kind of serving of the space", mode)]
    found = [
        Violation(f"units.{index}.units", "configuration: units within the space", "as pinned", units)
        for index, units in enumerate(decision.units)
        if not kept(constraints, "units", [units])
    ]
    if any(rule.axis and rule.axis[1] == "devices" for rule in constraints) and len(decision.pools) == 2:
        prefill, decode = (pool.devices for pool in decision.pools)
        if not any(s[0] >= prefill and s[1] >= decode and decision.units == s[2:][: len(decision.units)] for s in space.splits):
            found.append(Violation("pools", "configuration: a split of the space", "as constrained", [prefill, decode]))
    return found


def _robust_rows(inputs: Inputs, chosen: Decision, rows: list[Served]) -> tuple[list[Served], list[Violation]]:
    """The rows of a set at work, and what is wrong with each by itself or with all of them together."""
    if len(rows) != len(inputs.workloads):
        return rows, [Violation("robust", EACH, len(inputs.workloads), len(rows))]
    contexts, found = contexts_of(inputs, chosen.variant), []
    for number, (context, row) in enumerate(zip(contexts, rows, strict=True)):
        here = [Violation("pools", SAME, chosen.variant.label, row.decision.variant.label)]
        if row.decision.variant == chosen.variant:
            here = _shape_violations(context, declare_space(context), row.decision)
        if not here:
            operation = operate(context, row.decision)
            rows[number] = replace(row, operation=operation)
            here = [*_placements(operation), *_limit_violations(context, operation)]
        found += [replace(v, path=f"robust.{number}.{v.path}") for v in here]
    together = [] if found else robust_violations(contexts, rows, chosen, inputs.workload.id)
    return rows, found + [Violation(*entry) for entry in together]


def _transition_violations(inputs: Inputs, transition: Transition) -> list[Violation]:
    """The old plan's placement is a vertex; every alternative is inside its pins and the limits."""
    found = [replace(v, path=f"inputs.previous.{v.path}") for v in _placements(old_operation(inputs, transition.old))]
    rules = rules_of(transition.old)
    for number, row in enumerate(transition.rows):
        path = f"transition.alternatives.{number}."
        inside = restricted(inputs, rules[row.name]) if row.name in rules else None
        if inside is None or row.decision.variant not in inside.variants:
            found.append(Violation(f"{path}name", RULES, list(rules), f"{row.name[:80]} {row.decision.variant.label}"))
            continue
        context = build_context(inside, row.decision.variant)
        here = _shape_violations(context, declare_space(context), row.decision)
        here += [Violation("pools", RULES, rule, "broken") for rule in broken_pins(inside, row.decision)]
        if not here:
            operation = operate(context, row.decision)
            here = [*_placements(operation), *_limit_violations(context, operation)]
        found += [replace(v, path=path + v.path) for v in here]
    return found


def _limit_violations(context: Context, operation: Operation) -> list[Violation]:
    return [
        Violation("limits", f"limit: {check.name} ({check.unit})", f"at most {check.limit:.9g}", check.value)
        for check in checks(context, operation)
        if not check.holds
    ]


def _placements(operation: Operation) -> list[Violation]:
    return [
        violation
        for index, state in enumerate(operation.pools)
        for violation in _placement_violations(f"pools.{index}.placement_basis", state)
    ]


def _placement_violations(path: str, state: PoolState) -> list[Violation]:
    """Everything resident must fit; otherwise the basis must be feasible and have no negative reduced cost."""
    if state.point is None:
        return []
    found = []
    if state.point.infeasibility > DUAL_TOLERANCE:
        found.append(Violation(path, "placement: shares sum to one and no tier overflows", 0.0, state.point.infeasibility))
    if state.point.dual_infeasibility > DUAL_TOLERANCE:
        found.append(Violation(path, "placement: optimal basis (no negative reduced cost)", 0.0, state.point.dual_infeasibility))
    return found


def _bound_violations(plan: Plan) -> list[Violation]:
    """No bound is worse than the plan itself."""
    certificate, sign = plan.certificate, -1.0 if plan.objective == "throughput" else 1.0
    if sign * certificate.bound <= sign * certificate.objective + RELATIVE * abs(certificate.objective):
        return []
    return [Violation("certificate.bound", equation_of("certificate.bound"), certificate.objective, certificate.bound)]


def _high_violations(inputs: Inputs, plan: Plan) -> list[Violation]:
    """The 90th percentile of what is predicted is within the limits on it."""
    limits = (
        (name, getattr(inputs.options, f"high_{name}_s"), getattr(plan.prediction, f"{name}_ms")) for name in ("ttft", "tpot")
    )
    return [
        Violation(f"prediction.{name}_ms.high", f"limit: {name.upper()} at the 90th percentile (ms)", limit * 1e3, value.high)
        for name, limit, value in limits
        if limit is not None and not within_high(value.high, limit)
    ]


def _least_violations(context: Context, operation: Operation, tpot_s: float, plan: Plan) -> list[Violation]:
    found = []
    for check in checks(context, operation):
        if not check.holds and check.name != "service level TPOT":
            found.append(Violation("explanation.least_tpot", f"limit: {check.name}", check.limit, check.value))
    if tpot_s < operation.tpot_s * (1.0 - 1e-6 - plan.certificate.gap_allowed):
        found.append(
            Violation(
                "explanation.least_tpot.tpot_ms",
                "least TPOT: not above the plan's own",
                tpot_s * 1e3,
                operation.tpot_s * 1e3,
            )
        )
    return found


def _compare(expected: Any, found: Any, path: str = "") -> list[Violation]:
    """Every leaf outside ``inputs``: floats to 1e-9 relative, everything else exactly."""
    if path == "inputs":
        return []
    if isinstance(expected, dict) and isinstance(found, dict):
        result = []
        for key in [*expected, *(k for k in found if k not in expected)]:
            here = f"{path}.{key}" if path else str(key)
            if here == "inputs":
                continue
            if key not in found:
                result.append(Violation(here, equation_of(here), "present", "missing"))
            elif key not in expected:
                result.append(Violation(here, equation_of(here), "absent", found[key]))
            else:
                result += _compare(expected[key], found[key], here)
        return result
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return [Violation(path, equation_of(path), f"{len(expected)} entries", f"{len(found)} entries")]
        return [v for i, (a, b) in enumerate(zip(expected, found, strict=True)) for v in _compare(a, b, f"{path}.{i}")]
    if _same(expected, found, path):
        return []
    return [Violation(path, equation_of(path), expected, found)]


def _same(expected: Any, found: Any, path: str) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool) or expected is None or found is None:
        return expected is found
    if isinstance(expected, float) or isinstance(found, float):
        if not isinstance(expected, int | float) or not isinstance(found, int | float):
            return False
        if path == "certificate.gap" or re.fullmatch(r"(pareto\.points|transition\.alternatives)\.\d+\.gap", path):
            step = 10.0**-GAP_DECIMALS
            return found == round(found, GAP_DECIMALS) and abs(expected - found) <= 1.5 * step
        return abs(expected - found) <= RELATIVE * max(abs(expected), abs(found)) and math.isfinite(found)
    return type(expected) is type(found) and bool(expected == found)


def _notices(inputs: Inputs) -> list[str]:
    """Installed profiles of the same name that differ from the embedded ones. A name in a plan is never read as a path."""
    from planner.architecture import Model, find_model
    from planner.errors import InputError, PlannerError
    from planner.hardware import load_hardware, load_site
    from planner.prices import OwnedPrices, at_site, load_prices
    from planner.runtimes import load_runtime
    from planner.workload import load_workload

    def prices(name: str) -> OwnedPrices:
        site = inputs.prices.site
        return load_prices(name) if site is None else at_site(load_prices(name), load_site(site))

    def model(name: str) -> Model:
        entry = find_model(name)
        if entry is None:
            raise InputError(f"no model {name[:64]!r} in the catalogue")
        return entry.load()

    embedded: list[tuple[str, str, Any, Any]] = [
        ("model", inputs.model.id, inputs.model, model),
        ("runtime", inputs.runtime.id, inputs.runtime, load_runtime),
        ("prices", inputs.prices.id, inputs.prices, prices),
    ]
    embedded += [("workload", load.id, load, load_workload) for load in inputs.workloads or (inputs.workload,)]
    for selection in inputs.hardware.values():
        embedded.append(("hardware", selection.system.id, selection.system, lambda name: load_hardware(name).system))
    notices = []
    for kind, name, value, loader in embedded:
        if any(part in f"{name} {inputs.prices.site or ''}" for part in ("/", "\\", ".toml")):
            continue
        try:
            installed = loader(name)
        except PlannerError:
            continue
        if kind == "workload":  # limits are asked for plan by plan
            limits = {"ttft_s": value.ttft_s, "tpot_s": value.tpot_s}
            installed = installed.model_copy(update=limits)
        if installed != value:
            notices.append(f"{kind} {name}: the installed profile differs from the embedded one")
    return notices
