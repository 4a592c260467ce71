"""A given configuration against the best one: predicted at its pins, then with pins freed one by one.

Given and best run on the same hardware, workload, limits, demand, runtime and model of time; each at the load that suits it best
within its own ceiling of sequences and the limits, unless a demand or a concurrency is asked for, which then holds for both. Caches
of running sequences and the embedding of tokens lie in device memory in both, as in the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from planner.audit.configuration import FLAGS, PoolSetup, Setup, setup_of
from planner.audit.flags import changes
from planner.audit.read import Given
from planner.audit.schema import Audit, Change, FindingRow, PinRow, Reached
from planner.errors import InfeasibleError, InputError, StoppedError
from planner.export import EnginePool, engine_deployment
from planner.footprint.pieces import item_names
from planner.plans.constraints import Constraint
from planner.plans.context import build_context
from planner.plans.inputs import Inputs
from planner.plans.prefix import ITEM
from planner.plans.schema import Plan
from planner.reporter import Reporter
from planner.runtimes import Runtime
from planner.search import Stop, solve

NEAR = 0.01
"""Within this of the best a deployment counts as good as it."""
LEAST = 0.0005
"""What gains less is no change worth naming."""
ROUNDING = 0.001
"""Memory shares are written in thousandths."""
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
LAYOUT = ("tp", "pp", "attention_dp", "ep", "context_parallel")


class Resolve(Protocol):
    """``planner.api.resolve`` with all but these arguments bound."""

    def __call__(self, **options: Any) -> Inputs: ...


@dataclass(frozen=True)
class Pin:
    """Something that flags fix; ``key``: the axis, with its pool."""

    key: str
    rule: str
    flags: str


@dataclass(frozen=True)
class Lever:
    """What one decision frees."""

    title: str
    keys: frozenset[str]


@dataclass
class Judge:
    """Solves of one audit, each once. ``share``: bytes of device memory that plans may use, by setting."""

    make: Resolve
    setup: Setup
    runtime: Runtime
    options: dict[str, Any]
    pins: tuple[Pin, ...]
    asked: tuple[Constraint, ...]
    always: tuple[Constraint, ...]
    """Where the engine keeps what whatever the flags are; ``asked``: of the user."""
    limits: dict[str, Any]
    within: tuple[str, ...]
    """Roles of memories that the flags use, and ``reach``: that the engine can use."""
    reach: tuple[str, ...]
    variants: dict[str, tuple[Any, ...]]
    stop: Stop
    reporter: Reporter | None
    memory: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    solved: dict[frozenset[str], Plan | InfeasibleError] = field(default_factory=dict)

    def inputs(self, free: frozenset[str], **more: Any) -> Inputs:
        """The inputs with these axes free."""
        held = [pin for pin in self.pins if pin.key not in free]
        own = tuple(Constraint(name=pin.flags[:120], sort="pin", rule=pin.rule) for pin in held)
        placed = self.always if len(self.within if "offload" not in free else self.reach) > 1 else ()
        settings = (*self.options.get("settings", ()), *(self.memory if "memory" not in free else ()))
        settings += self.host if "offload" not in free else ()
        setup = {"kv_dtype": self.setup.kv_dtype, "mtp": self.setup.mtp, "redundant_experts": self.setup.redundant}
        variant = {name: self.variants[name] if name in free else (value,) for name, value in setup.items()}
        tiers = self.within if "offload" not in free else self.reach
        given = {**self.limits, "tiers": tiers, "runtime": self.runtime, "constraints": (*self.asked, *placed, *_unique(own))}
        return self.make(**{**given, **variant, "settings": settings, **more})

    def plan(self, free: frozenset[str]) -> Plan | InfeasibleError:
        """The best plan with these axes free, or why there is none; ``StoppedError`` where the time is up."""
        if free not in self.solved:
            if self.stop.reason():
                raise StoppedError("stopped before every change was tried")
            try:
                self.solved[free] = solve(self.inputs(free), self.reporter, self.stop, explain=not free)
            except InfeasibleError as error:
                self.solved[free] = error
        return self.solved[free]


def _unique(rules: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
    """Constraints whose flags are the same get numbers."""
    found: dict[str, Constraint] = {}
    for rule in rules:
        name, number = rule.name, 2
        while name in found:
            name, number = f"{rule.name[:112]} ({number})", number + 1
        found[name] = rule.model_copy(update={"name": name})
    return tuple(found.values())


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

    Raises ``InputError``; ``InfeasibleError`` where no flags serve the workload; ``StoppedError`` before given and best are known.
    """
    begin = beginning or (lambda _: None)
    begin("the given flags")
    base = make(**{name: options[name] for name in ("settings", "constraints") if name in options})
    routed = any(group.access == "routed" for block in base.model.blocks for group in block.weights)
    systems = {phase: selection.system for phase, selection in base.hardware.items()}
    setup = setup_of(given, systems, engine_runtime, routed=routed, longest=base.workload.reserved_tokens)
    judge = _judge(setup, base, make, options, instances, reporter, stop or Stop())
    first = judge.plan(frozenset())
    if isinstance(first, Plan):
        judge.memory = _memory(setup, base, first)
        if judge.memory:
            judge.solved.clear()
            first = judge.plan(frozenset())
    levers = _levers(judge, routed)
    every = frozenset[str]().union(*(lever.keys for lever in levers), {pin.key for pin in judge.pins})
    begin("the best flags")
    best = judge.plan(every)
    if isinstance(best, InfeasibleError):
        raise best
    relaxed = _without_limits(judge) if isinstance(first, InfeasibleError) else None
    stopped = None
    single: list[tuple[Lever, Plan]] = []
    path: list[tuple[Lever, Plan]] = []
    try:
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
    return _audit(judge, base, first, best, relaxed, [_change(setup, one, plan, one.keys, first) for one, plan in single], steps, stopped)


def _judge(
    setup: Setup,
    base: Inputs,
    make: Resolve,
    options: Mapping[str, Any],
    instances: Mapping[str, int] | None,
    reporter: Reporter | None,
    stop: Stop,
) -> Judge:
    chunks = {pool.chunk for pool in setup.pools if pool.chunk is not None}
    batches = [pool.batch for pool in setup.pools if pool.batch is not None and "batch_per_rank" not in pool.assumed]
    most = max([base.runtime.max_sequences_per_rank, *batches])
    changed = {"prefill_tokens": tuple(sorted({*base.runtime.prefill_tokens, *chunks})), "max_sequences_per_rank": min(most, 65536)}
    counted = _instances(setup, instances)
    total = sum(counted[pool.phase] * pool.devices for pool in setup.pools) if counted else None
    pins, always = _pins(setup, base, counted)
    within, reach = _roles(setup, base, _present(base))
    asked = {"kv_dtype": setup.kv_dtype, "mtp": setup.mtp, "redundant_experts": setup.redundant}
    return Judge(
        make=make,
        setup=setup,
        runtime=base.runtime.model_copy(update=changed),
        options=dict(options),
        pins=pins,
        asked=base.options.constraints,
        always=always,
        limits={
            "devices": total if base.options.devices is None else base.options.devices,
            "weight_dtype": base.options.weight_dtype or setup.weight_dtype,
        },
        within=within,
        reach=reach,
        variants={name: tuple(dict.fromkeys((value, *options.get(name, ())))) for name, value in asked.items()},
        stop=stop,
        reporter=reporter,
        host=_host(setup, base),
    )


def _instances(setup: Setup, asked: Mapping[str, int] | None) -> dict[str, int]:
    """Instances by pool where they are known: asked for, or from several lines of a kind."""
    phases = {pool.phase for pool in setup.pools}
    if asked is not None:
        if set(asked) != phases:
            wanted = ",".join(f"{phase}=N" for phase in sorted(phases, reverse=True)) if len(phases) > 1 else "N"
            raise InputError("does not fit the pools that are given", where="--instances", mend=f"write {wanted}")
        return {pool.phase: asked[pool.phase] for pool in setup.pools}
    counts = {pool.phase: pool.given.instances * pool.replicas for pool in setup.pools}
    return counts if max(counts.values()) > 1 else {}


def _pins(setup: Setup, base: Inputs, counted: Mapping[str, int]) -> tuple[tuple[Pin, ...], tuple[Constraint, ...]]:
    """What the flags fix, and what the engine fixes whatever the flags are."""
    apart = len(setup.pools) > 1
    pins = [Pin("serving", f"serving={'disaggregated' if apart else 'aggregated'}", "pools of the launch lines")]
    for pool in setup.pools:
        before = f"{pool.phase}." if apart else ""
        values = {
            "tp": pool.tp,
            "pp": pool.pp,
            "attention_dp": pool.attention_dp,
            "ep": pool.ep,
            "context_parallel": pool.context_parallel,
        }
        for axis, value in values.items():
            pins.append(Pin(f"{pool.phase}.{axis}", f"{before}{axis}={value}", _flags(setup, pool, axis)))
        if pool.batch is not None and pool.batch < base.runtime.max_sequences_per_rank:
            rule = f"{before}batch_per_rank<={pool.batch}"
            pins.append(Pin(f"{pool.phase}.batch_per_rank", rule, _flags(setup, pool, "batch_per_rank")))
        if pool.chunk is not None:
            rule = f"{before}prefill_tokens_per_rank={pool.chunk}"
            pins.append(Pin(f"{pool.phase}.prefill_tokens_per_rank", rule, _flags(setup, pool, "prefill_tokens_per_rank")))
        if counted and apart:
            rule = f"{pool.phase}.devices={counted[pool.phase] * pool.devices}"
            pins.append(Pin("instances", rule, f"{pool.phase}: instances of it"))
    context = build_context(base, base.variants[0])
    roles = _present(base)
    names = dict.fromkeys(name for pool in context.pools.values() for name in item_names(pool.pieces))
    tables = {
        block.lookups[0].label
        for pool in context.pools.values()
        for window in (*pool.pieces.windows, *pool.pieces.draft)
        if window.first_layer >= 0 and window.first_layer < pool.pieces.layers
        for block in window.blocks
        if block.lookups
    }
    always = []
    within, reach = _roles(setup, base, roles)
    for item in (*names, *((ITEM,) if base.workload.prefix_cache else ())):
        able = {"device", *(setup.prefix_below if item == ITEM else ())} & roles
        if item in ("weights", "routed experts") or item in tables:
            able |= {"host"} & roles
        if set(reach) - able:
            places = ",".join(role for role in reach if role in able)
            always.append(Constraint(name=f"{setup.engine} keeps {item} in {places}", sort="pin", rule=f"{item}@{places}"))
        if item in tables and "host" in within:
            pins.append(Pin("offload", f"{item}@{'host' if setup.tables_below else 'device'}", f"where {item} lies"))
        elif item in ("weights", "routed experts") and "host" in within and not setup.weights_below:
            pins.append(Pin("offload", f"{item}@device", f"no offload of {item}"))
    return tuple(pins), tuple(always)


def _present(base: Inputs) -> set[str]:
    return {tier.role for selection in base.hardware.values() for tier in selection.system.tiers}


def _roles(setup: Setup, base: Inputs, roles: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Memories that the flags use, and those that the engine can use."""
    used = {"device", *setup.prefix_below, *(("host",) if setup.weights_below or setup.tables_below else ())}
    able = {"device", "host", *setup.prefix_below}
    every = [role for role in ("device", "host", "disk") if role in roles]
    return tuple(role for role in every if role in used), tuple(role for role in every if role in able)


def _flags(setup: Setup, pool: PoolSetup, axis: str) -> str:
    """The flags that fix an axis, as given, or that they are left out."""
    options = pool.given.launch.options
    names = FLAGS[setup.engine][axis]
    main = ("tp-size", "attn-dp-size", "dp-size") if setup.engine == "sglang" and axis in ("tp", "attention_dp") else names
    said = [f"--{name}" if options[name] is True else f"--{name} {options[name]}" for name in main if name in options]
    text = ", ".join(said) or f"no --{names[0]}"
    if not said and axis in pool.assumed:
        text += f": {pool.assumed[axis]}"
    return f"{pool.phase}: {text}" if len(setup.pools) > 1 else text


def _host(setup: Setup, base: Inputs) -> tuple[str, ...]:
    """Settings that leave as much host memory as weights may fill."""
    if setup.host_bytes is None or setup.tables_below or setup.prefix_below:
        return ()
    found = {}
    for selection in base.hardware.values():
        for tier in selection.system.tiers:
            size = setup.host_bytes * tier.devices_sharing
            if tier.role == "host" and size < tier.usable.value:
                found[selection.system.id] = f"{selection.system.id}.tier.{tier.id}.usable={size:.0f} B"
    return tuple(found.values())


def _memory(setup: Setup, base: Inputs, plan: Plan) -> tuple[str, ...]:
    """Settings that leave as much device memory as the flags do, where that is less than plans take."""
    least: dict[str, tuple[float, str]] = {}
    lost = base.runtime.reserve.fragmentation.value
    for pool in engine_deployment(plan).pools:
        source = next((own for own in setup.pools if own.phase == pool.phase), None)
        if source is None or source.fraction is None:
            continue
        aside = pool.outside_bytes if setup.engine == "vllm" else pool.reserve_bytes
        usable = _usable(source.fraction, pool, aside, lost)
        if usable is None or usable >= least.get(pool.system.id, (float("inf"), ""))[0]:
            continue
        tier = next(tier for tier in pool.system.tiers if tier.role == "device")
        least[pool.system.id] = (usable, f"{pool.system.device.id}.memory.{tier.id}.usable={usable:.0f} B")
    return tuple(setting for _, setting in least.values())


def _usable(fraction: float, pool: EnginePool, aside: float, lost: float) -> float | None:
    """Bytes that a plan may use so that it leaves ``fraction`` of the device to the engine; ``None`` if it does anyway. Of what is
    set aside the part ``lost`` of all bytes shrinks with them."""
    size = pool.device_memory_bytes
    if (fraction + ROUNDING) * size >= size - aside:
        return None
    return float((fraction * size + aside - lost * size) / (1.0 - lost))


def _levers(judge: Judge, routed: bool) -> list[Lever]:
    """Every single decision, and the whole layout of an instance."""
    held = {pin.key for pin in judge.pins}
    levers = []
    for pool in judge.setup.pools:
        of = f" of the {pool.phase} pool" if len(judge.setup.pools) > 1 else ""
        for axis, title in TITLES.items():
            if f"{pool.phase}.{axis}" in held and (routed or axis not in ("attention_dp", "ep")):
                keys = (axis, *(ALONGSIDE.get(axis, ()) if routed else ()))
                levers.append(Lever(f"{title}{of}", frozenset(f"{pool.phase}.{key}" for key in keys)))
        levers.append(Lever(f"the whole layout{of}", frozenset(f"{pool.phase}.{key}" for key in LAYOUT)))
    if len(judge.setup.pools) == 1:
        again = frozenset(f"mixed.{axis}" for axis in TITLES)
        levers.append(Lever("prefill and decode apart, each laid out anew", again | {"serving"}))
    if "instances" in held:
        levers.append(Lever("instances of each pool", frozenset({"instances"})))
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
        return solve(judge.inputs(frozenset(), workload=free, slo_on="expected"), judge.reporter, judge.stop)
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
    """Each lever alone on top of what is free, best first; only what improves, and only the smallest of those that find the same."""
    found: list[tuple[Lever, Plan]] = []
    for lever in levers:
        if lever.keys <= free:
            continue
        begin(lever.title)
        plan = judge.plan(free | lever.keys)
        if isinstance(plan, Plan):
            gain = _gain(plan, before)
            if gain is None or gain > LEAST:
                found.append((lever, plan))
    found.sort(key=lambda pair: (round(_order(pair[1]), 12), len(pair[0].keys), levers.index(pair[0])))
    kept: list[tuple[Lever, Plan]] = []
    for lever, plan in found:
        twin = next((one for one in kept if one[0].keys < lever.keys and _order(one[1]) <= _order(plan) * (1 + 1e-9)), None)
        if twin is None:
            kept.append((lever, plan))
    return kept


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
    counts = _counted(first) if isinstance(first, Plan) else {pool.phase: pool.given.instances for pool in setup.pools}
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


def _counted(plan: Plan) -> dict[str, int]:
    return {pool.phase: pool.replicas for pool in plan.pools}


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
