"""A given configuration against the best one: predicted at its pins, then with pins freed one by one.

Given and best run on the same hardware, workload, limits, demand, runtime and model of time; each at the load that suits it best
within its own ceiling of sequences and the limits, unless a demand or a concurrency is asked for, which then holds for both.
Caches of running sequences and the embedding of tokens lie in device memory in both, as in the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from planner.audit.configuration import Setup, setup_of
from planner.audit.flags import changes
from planner.audit.pins import memory_settings
from planner.audit.read import Finding, Given
from planner.audit.schema import Audit, Change, FindingRow, PinRow, Reached
from planner.audit.solves import Judge, Resolve, judge_of
from planner.errors import InfeasibleError, StoppedError
from planner.plans.inputs import Inputs
from planner.plans.schema import Plan
from planner.reporter import Reporter
from planner.runtimes import Runtime
from planner.search import Stop, solve

NEAR = 0.01
"""Within this of the best a deployment counts as good as it."""
LEAST = 0.0005
"""What gains less is no change worth naming."""
MOST_STEPS = 6
TITLES = {
    "tp": "tensor parallelism",
    "pp": "pipeline depth",
    "attention_dp": "attention data parallelism",
    "ep": "expert parallelism",
    "context_parallel": "context parallelism",
    "batch_per_rank": "sequences at once",
    "prefill_tokens_per_rank": "tokens of a prefill pass",
}
ALONGSIDE = {"tp": ("ep",), "attention_dp": ("ep",)}
"""Axes that can't stay where another moves: experts are spread over all ranks or over the attention groups."""


@dataclass(frozen=True)
class Lever:
    """What one decision frees."""

    title: str
    keys: frozenset[str]


def audit(
    given: Given,
    make: Resolve,
    engine_runtime: Runtime,
    *,
    options: Mapping[str, Any],
    instances: Mapping[str, int] | None = None,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
    beginning: Callable[[str], None] | None = None,
) -> Audit:
    """An audit. ``engine_runtime``: the engine's own, for its defaults; ``options``: what else ``make`` is called with, of which
    ``kv_dtype``, ``mtp`` and ``redundant_experts`` are choices that the best deployment has beside the given one.

    Raises ``InputError``; ``InfeasibleError`` where no flags serve the workload; ``StoppedError`` before both are known.
    """
    begin = beginning or (lambda _: None)
    begin("the given flags")
    base = make(**{name: options[name] for name in ("settings", "constraints", "tiers") if name in options})
    routed = any(group.access == "routed" for block in base.model.blocks for group in block.weights)
    systems = {phase: selection.system for phase, selection in base.hardware.items()}
    setup = setup_of(given, systems, engine_runtime, routed=routed, longest=base.workload.reserved_tokens)
    if setup.mtp and base.model.speculation is None:
        source = setup.pools[-1].given.launch
        flag = "--speculative-config" if setup.engine == "vllm" else "--speculative-algorithm"
        what = f"{base.model.id} has no draft module: predicted without drafts"
        setup = replace(setup, mtp=0, findings=(*setup.findings, Finding("wrong", source.where, flag, what)))
    judge = judge_of(setup, base, make, options, instances, reporter, stop or Stop())
    first = judge.plan(frozenset())
    if isinstance(first, Plan):
        judge.memory = memory_settings(setup, base, first)
        if judge.memory:
            judge.solved.clear()
            first = judge.plan(frozenset())
    levers = _levers(judge, routed)
    every = frozenset[str]().union(*(lever.keys for lever in levers), {pin.key for pin in judge.pins})
    begin("the best flags")
    best = judge.explained(every)
    if isinstance(best, InfeasibleError):
        raise best
    first = judge.explained(frozenset())
    if isinstance(first, Plan) and _order(first) < _order(best):  # within the gap that is allowed
        best = first
    relaxed = _without_limits(judge) if isinstance(first, InfeasibleError) else None
    stopped = None
    single: list[tuple[Lever, Plan]] = []
    path: list[tuple[Lever, Plan]] = []
    try:
        if (gain := _gain(best, first)) is None or gain > LEAST:
            single = _tried(judge, levers, frozenset(), first, begin)
            path = _steps(judge, levers, single, first, best, every, begin)
    except StoppedError:
        stopped = judge.stop.reason() or "stopped"
    free: frozenset[str] = frozenset()
    steps, before = [], first
    for lever, plan in path:
        free |= lever.keys
        steps.append(_change(setup, lever, plan, free, before))
        before = plan
    return _audit(
        judge, base, first, best, relaxed, [_change(setup, one, plan, one.keys, first) for one, plan in single], steps, stopped
    )


def _levers(judge: Judge, routed: bool) -> list[Lever]:
    """Every single decision, and all of a pool together."""
    held = {pin.key for pin in judge.pins}
    levers = []
    for pool in judge.setup.pools:
        of = f" of the {pool.phase} pool" if len(judge.setup.pools) > 1 else ""
        for axis, title in TITLES.items():
            if f"{pool.phase}.{axis}" in held and (routed or axis not in ("attention_dp", "ep")):
                keys = (axis, *(ALONGSIDE.get(axis, ()) if routed else ()))
                levers.append(Lever(f"{title}{of}", frozenset(f"{pool.phase}.{key}" for key in keys)))
        levers.append(Lever(f"layout and load{of}", frozenset(f"{pool.phase}.{axis}" for axis in TITLES)))
    if len(judge.setup.pools) == 1:
        again = frozenset(f"mixed.{axis}" for axis in TITLES)
        levers.append(Lever("prefill and decode apart, each laid out anew", again | {"serving"}))
    if "instances" in held:
        levers.append(Lever("how many instances", frozenset({"instances"})))
    if judge.memory:
        levers.append(Lever("share of device memory", frozenset({"memory"})))
    if "offload" in held or judge.host or judge.within != judge.reach:
        levers.append(Lever("what lies in host memory", frozenset({"offload"})))
    titles = {"kv_dtype": "dtype of the cache", "mtp": "draft tokens", "redundant_experts": "copies of experts"}
    return levers + [Lever(title, frozenset({name})) for name, title in titles.items() if len(judge.variants[name]) > 1]


def _without_limits(judge: Judge) -> Plan | None:
    """What the given flags reach where the limits on times and the demand do not hold."""
    load = judge.inputs(frozenset()).workload
    if (load.ttft_s, load.tpot_s) == (None, None):
        return None
    free = load.model_copy(update={"ttft_s": None, "tpot_s": None})
    try:
        return solve(judge.inputs(frozenset(), workload=free, slo_on="expected"), judge.reporter, judge.stop, explain=False)
    except InfeasibleError:
        return None


def _gain(plan: Plan, before: Plan | InfeasibleError) -> float | None:
    """By what share of its objective the one before improves; less than nothing where it worsens."""
    if not isinstance(before, Plan):
        return None
    was, now = before.certificate.objective, plan.certificate.objective
    return (now - was) / abs(was) if plan.objective == "throughput" else (was - now) / abs(was)


def _order(plan: Plan) -> float:
    """Smaller is better."""
    return -plan.certificate.objective if plan.objective == "throughput" else plan.certificate.objective


def _tried(
    judge: Judge, levers: list[Lever], free: frozenset[str], before: Plan | InfeasibleError, begin: Callable[[str], None]
) -> list[tuple[Lever, Plan]]:
    """Each lever alone on top of what is free, best first; only what improves, and what frees more than
    another only if it improves on that one."""
    found: list[tuple[Lever, Plan]] = []
    for lever in levers:
        if lever.keys <= free:
            continue
        begin(lever.title)
        plan = judge.plan(free | lever.keys)
        if isinstance(plan, Plan) and not ("serving" in lever.keys and plan.mode == "aggregated"):
            gain = _gain(plan, before)
            if gain is None or gain > LEAST:
                found.append((lever, plan))
    found.sort(key=lambda pair: (round(_order(pair[1]), 12), len(pair[0].keys), levers.index(pair[0])))

    def adds(lever: Lever, plan: Plan) -> bool:
        return all((_gain(plan, other) or 0.0) > LEAST for one, other in found if one.keys < lever.keys)

    return [(lever, plan) for lever, plan in found if adds(lever, plan)]


def _steps(
    judge: Judge,
    levers: list[Lever],
    single: list[tuple[Lever, Plan]],
    first: Plan | InfeasibleError,
    best: Plan,
    every: frozenset[str],
    begin: Callable[[str], None],
) -> list[tuple[Lever, Plan]]:
    """The best change, then the best on top of it, until the best deployment is near; then all the rest at once."""
    path: list[tuple[Lever, Plan]] = []
    free: frozenset[str] = frozenset()
    now, tried = first, single
    if isinstance(now, Plan) and (_gain(best, now) or 0.0) <= NEAR:
        return path
    while tried and len(path) < MOST_STEPS:
        lever, plan = tried[0]
        path.append((lever, plan))
        free, now = free | lever.keys, plan
        if (_gain(best, now) or 0.0) <= NEAR:
            return path
        tried = _tried(judge, levers, free, now, begin)
    gain = _gain(best, now)
    if gain is None or gain > NEAR:
        path.append((Lever("everything else together", every - free), best))
    return path


def _change(setup: Setup, lever: Lever, plan: Plan, free: frozenset[str], before: Plan | InfeasibleError) -> Change:
    flags, lines, lost = changes(setup, plan, free)
    return Change(
        frees=lever.title,
        flags=flags,
        objective=plan.certificate.objective,
        improvement=_gain(plan, before),
        mode=plan.mode,
        commands=lines,
        not_carried=lost,
    )


def _reached(plan: Plan | None) -> Reached | None:
    return None if plan is None else Reached(objective=plan.certificate.objective, plan=plan)


def _audit(
    judge: Judge,
    base: Inputs,
    first: Plan | InfeasibleError,
    best: Plan,
    relaxed: Plan | None,
    single: list[Change],
    steps: list[Change],
    stopped: str | None,
) -> Audit:
    setup, serves = judge.setup, isinstance(first, Plan)
    counts: dict[str, int] = {pool.phase: pool.given.instances for pool in setup.pools}
    if isinstance(first, Plan):
        counts = {pool.phase: pool.replicas for pool in first.pools}
    held = [PinRow(pin=pin.rule, flags=pin.flags) for pin in judge.pins]
    held += [PinRow(pin=f"--set {setting}", flags="share of device memory") for setting in judge.memory]
    held += [PinRow(pin=f"--set {setting}", flags="host memory for weights") for setting in judge.host]
    return Audit(
        engine=f"{setup.engine} {_version(setup)}",
        model=base.model.id,
        hardware=best.hardware,
        workload=best.workload,
        runtime=base.runtime.id,
        objective=best.objective,
        unit=best.certificate.unit,
        findings=[FindingRow(kind=one.kind, where=one.where, flag=one.flag, what=one.what) for one in setup.findings],
        ignored=list(setup.ignored),
        pins=held,
        instances=counts,
        predicted=_reached(first) if isinstance(first, Plan) else None,
        without_limits=_reached(relaxed),
        conflict=[] if isinstance(first, Plan) else [dict(row) for row in first.conflict],
        message="" if isinstance(first, Plan) else str(first),
        best=Reached(objective=best.certificate.objective, plan=best),
        gap=max(_gain(best, first) or 0.0, 0.0) if serves else None,
        changes=single,
        steps=steps,
        notes=_notes(judge, base),
        stopped=stopped,
    )


def _version(setup: Setup) -> str:
    from planner.export.options import load_options

    return load_options(setup.engine).version


def _notes(judge: Judge, base: Inputs) -> list[str]:
    """What holds for both sides."""
    asked = base.options
    demand = [f"{asked.rate:g} requests/s"] if asked.rate is not None else []
    demand += [f"{asked.tokens_per_day:g} tokens a day"] if asked.tokens_per_day is not None else []
    demand += [f"at most {asked.concurrency} requests in flight"] if asked.concurrency is not None else []
    held = " and ".join(demand) or "the load that suits it best within the limits and its ceiling of sequences"
    notes = [f"given and best run on the same hardware, workload and limits, {'under' if demand else 'each at'} {held}"]
    if judge.limits["devices"] is None:
        notes.append("instances were not counted: as many as suit the hardware")
    else:
        notes.append(f"at most {judge.limits['devices']} devices, as the given deployment uses")
    fixed = [name for name, values in judge.variants.items() if len(values) == 1]
    if fixed:
        named = {"kv_dtype": "--kv-dtype", "mtp": "--mtp", "redundant_experts": "--redundant-experts"}
        notes.append(f"as given in the best too: {', '.join(fixed)} ({', '.join(named[name] for name in fixed)} name others)")
    return notes
