"""The public functions: the only place where rooms are wired together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

from pydantic import ValidationError

from planner.documents import explain_validation
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.architecture import Model
    from planner.audit import Audit, Engine
    from planner.comparison import Comparison
    from planner.hardware import HardwareSelection, Site
    from planner.plans.inputs import Asked, Inputs
    from planner.plans.mix import Mix
    from planner.plans.schema import Plan
    from planner.plans.verify import Violation
    from planner.prices import OwnedPrices
    from planner.prices.inventory import Inventory
    from planner.reporter import Reporter
    from planner.runtimes import Runtime
    from planner.search import Stop
    from planner.workload import Workload


def parse_hardware(text: str, folders: tuple[Path, ...] = ()) -> dict[str, HardwareSelection]:
    """``NAME``, ``NAME:N`` or ``prefill=NAME:N,decode=NAME:M`` to selections by phase."""
    from planner.hardware import load_hardware

    if not text.startswith(("prefill=", "decode=")):
        return {"mixed": load_hardware(text, folders=folders)}
    pools: dict[str, HardwareSelection] = {}
    for part in text.split(","):
        phase, _, name = part.partition("=")
        if phase not in ("prefill", "decode") or not name or phase in pools:
            raise InputError(f"cannot read {part!r}", where="hardware", mend="write prefill=NAME:N,decode=NAME:M")
        pools[phase] = load_hardware(name, folders=folders)
    if set(pools) != {"prefill", "decode"}:
        raise InputError("both pools are needed", where="hardware", mend="write prefill=NAME:N,decode=NAME:M")
    return _in_order(pools)


def _in_order(pools: dict[str, HardwareSelection]) -> dict[str, HardwareSelection]:
    """Prefill before decode, however they were written: units are counted in this order."""
    return {phase: pools[phase] for phase in sorted(pools, key=lambda phase: (phase != "prefill", phase))}


def _by_phase(hardware: HardwareSelection | dict[str, HardwareSelection]) -> dict[str, HardwareSelection]:
    return _in_order(hardware) if isinstance(hardware, dict) else {"mixed": hardware}


def _at_runtime(text: str) -> tuple[str, str | None]:
    """``NAME:N@RUNTIME`` apart; ``InputError`` where there is no such runtime."""
    from planner.runtimes import load_runtime

    name, at, runtime = text.rpartition("@")
    if not at:
        return text, None
    load_runtime(runtime)
    return name, runtime


def _label(pools: dict[str, HardwareSelection]) -> str:
    """As ``parse_hardware`` reads it."""
    parts = [f"{one.system.id}:{'auto' if one.auto else one.count}" for one in pools.values()]
    return parts[0] if set(pools) == {"mixed"} else ",".join(f"{p}={part}" for p, part in zip(pools, parts, strict=True))


def resolve(
    model: str | Model,
    hardware: str | HardwareSelection | dict[str, HardwareSelection],
    *,
    workload: str | Workload | Sequence[str | Workload] = "interactive",
    runtime: str | Runtime = "generic",
    calibration: Path | None = None,
    prices: str | OwnedPrices = "owned",
    site: str | Site | None = None,
    allow_announced: bool = False,
    settings: Sequence[str] = (),
    slo_on: Literal["expected", "high"] = "expected",
    **options: Unpack[Asked],
) -> Inputs:
    """Names to resolved inputs. ``options`` are the fields of ``planner.plans.Options``; the rest as in ``plan``."""
    from planner.architecture import load_model
    from planner.hardware import apply_settings, load_site, with_estimates
    from planner.hardware.schema import RentBasis
    from planner.plans.hours import terms_of
    from planner.plans.inputs import Inputs, Options
    from planner.plans.needs import refuse_unknown
    from planner.plans.robust import refuse_sets
    from planner.prices import at_site, load_prices
    from planner.runtimes import calibrated_runtime
    from planner.workload import Workload, load_workload

    asked: dict[str, Any] = {**options}
    pools = parse_hardware(hardware) if isinstance(hardware, str) else _by_phase(hardware)
    for selection in pools.values():
        system = selection.system
        if system.status == "cancelled":
            raise InputError(f"{system.id} was cancelled", where="hardware", mend="choose a part that exists")
        if system.status == "announced" and not allow_announced:
            raise InputError(f"{system.id} is announced, not shipping", where="hardware", mend="add --allow-announced")
    pools = {phase: with_estimates(selection) for phase, selection in apply_settings(pools, settings).items()}
    subject = load_model(model) if isinstance(model, str) else model
    if asked.get("mtp") == "auto":
        depth = len(subject.speculation.acceptance) if subject.speculation else 0
        asked["mtp"] = tuple(range(depth + 1))
    given = [workload] if isinstance(workload, str | Workload) else list(workload)
    loads = tuple(load_workload(one) if isinstance(one, str) else one for one in given)
    refuse_sets(loads, asked.get("robust") == "workloads")
    load = loads[0]
    if slo_on == "high":
        asked |= {"high_ttft_s": load.ttft_s, "high_tpot_s": load.tpot_s}
        if load.ttft_s is None and load.tpot_s is None:
            raise InputError("the workload has no limits", where="--slo-on high", mend="give --ttft or --tpot")
    if isinstance(prices, str) and prices in get_args(RentBasis):
        asked["price_basis"], prices = prices, "owned"
    basis = load_prices(prices) if isinstance(prices, str) else prices
    if site is not None and asked.get("price_basis", "owned") != "owned":
        raise InputError("a rented hour has a site's electricity in it", where="--site", mend="leave it out, or use owned prices")
    if site is not None:
        basis = at_site(basis, load_site(site) if isinstance(site, str) else site)
    try:
        inputs = Inputs(
            model=subject,
            hardware=pools,
            workload=load,
            workloads=loads if len(loads) > 1 else (),
            runtime=calibrated_runtime(runtime, calibration),
            prices=basis,
            options=Options(**asked),
        )
    except ValidationError as error:
        raise explain_validation(error, "options") from None
    most = inputs.model.max_context
    for one in loads:
        if one.reserved_tokens > most:
            raise InputError(
                f"{one.reserved_tokens} tokens a request, input and output, are more than the {most} that {inputs.model.id} was "
                "made for",
                where=f"workload {one.id}",
                mend="lower --isl or --osl",
            )
    for selection in inputs.hardware.values():
        terms_of(inputs).hour(selection.system)  # refuses what has no price of that basis
    refuse_unknown(inputs)
    return inputs


def plan(
    model: str | Model,
    hardware: str | HardwareSelection | dict[str, HardwareSelection],
    *,
    workload: str | Workload | Sequence[str | Workload] = "interactive",
    runtime: str | Runtime = "generic",
    calibration: Path | None = None,
    prices: str | OwnedPrices = "owned",
    site: str | Site | None = None,
    allow_announced: bool = False,
    settings: Sequence[str] = (),
    slo_on: Literal["expected", "high"] = "expected",
    previous: Plan | None = None,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
    **options: Unpack[Asked],
) -> Plan:
    """The best deployment of a model on hardware for a workload, with a proved gap.

    ``model``, ``hardware``, ``workload``, ``runtime`` and ``prices`` are names, paths or loaded objects; ``options`` are the
    fields of ``planner.plans.Options`` (objective, devices, tiers, weight_dtype, kv_dtype, mtp, concurrency, gap …).
    ``workload`` may be several with ``robust="workloads"``: one deployment for all of them, best for the one that fares worst.
    ``calibration``: a file of ``planner calibrate`` to lay over the runtime in place of the built-in one.
    ``prices`` may also be a rented basis (``"rent_od"``, ``"rent_1y"``, ``"rent_3y"``, ``"rent_spot"``, ``"tco"``), at the
    offers of the hardware's profile; ``price_date`` then picks those of a day.
    ``site`` gives the prices its electricity, PUE and planning life: ``"cn-west-hub"`` or a loaded ``Site``.
    ``settings`` replace figures of the hardware: ``"ascend-950dt.memory.hbm.read=4.0 TB/s"``, or ``3.6..4.0..4.2 TB/s``.
    ``slo_on="high"``: the workload's limits bind the 90th percentile of the prediction in place of its expected value.
    ``previous``: the plan to take over from; the new one says what must move, and what else there was to choose from.
    ``stop`` ends the search early: the best plan so far is returned with ``certificate.stopped`` and an honest gap.

    Raises ``InputError`` (bad input), ``InfeasibleError`` (proved infeasible, with the conflict) or ``StoppedError``.
    """
    from planner.search import replan, solve, take_over

    if options.get("robust") == "workloads" and previous is not None:
        raise InputError("is not built for taking over from a plan", where="--robust workloads", mend="leave out --from")
    if options.get("max_move_bytes") is not None and previous is None:
        raise InputError("limits what moves from one plan to another", where="--max-move-bytes", mend="add --from PLAN")
    inputs = resolve(
        model,
        hardware,
        workload=workload,
        runtime=runtime,
        calibration=calibration,
        prices=prices,
        site=site,
        allow_announced=allow_announced,
        settings=settings,
        slo_on=slo_on,
        **options,
    )
    if previous is not None:
        return replan(take_over(inputs, previous), reporter, stop)
    return solve(inputs, reporter, stop)


def verify(plan: Plan | str, *, full: bool = False, where: str = "plan") -> tuple[list[Violation], list[str]]:
    """Recompute every number of a plan, or of its JSON text, from the inputs that it embeds: ``(violations, notices)``.

    A violation names path, equation, expected and found value; numbers agree within 1e-9 of themselves. ``full``: also the bound
    of every configuration of the space. Notices tell of installed profiles that differ from the embedded ones.
    ``where``: what to call the plan in messages.

    Raises ``InputError`` where the text is no plan, or one of another ``schema_version``, which it names.
    """
    from planner.errors import VerificationError
    from planner.plans import Violation, read_plan, verify_plan

    try:
        return verify_plan(read_plan(plan, where) if isinstance(plan, str) else plan, where, full=full)
    except VerificationError as error:
        return [Violation(str(v["path"]), str(v["equation"]), v["expected"], v["found"]) for v in error.violations], []


def compare(
    model: str | Model | Sequence[str | Model],
    hardware: Sequence[str | HardwareSelection | dict[str, HardwareSelection]],
    *,
    equal: Literal["cost", "power"] | None = None,
    folders: tuple[Path, ...] = (),
    settings: Sequence[str] = (),
    reporter: Reporter | None = None,
    stop: Stop | None = None,
    beginning: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> Comparison:
    """One model, or several, on several hardware: each planned as ``plan`` does with these ``options``, then set side by side.

    ``hardware``: as in ``plan``, a name also with the runtime of that row: ``"atlas-800-a3:2@vllm-ascend"``.
    ``equal``: every row may spend an hour (or draw, by stated power) what the first plan does; how many systems that is, the
    planner counts. ``settings`` change whichever hardware they name. A row without a plan says why and stops no other.
    ``beginning`` is told before each row how many are done,
    how many there are, and its name. ``stop`` gives each row its part of the time that is left.

    Raises ``InputError`` where a name is unknown, or where the inputs of no row go together.
    """
    from planner.architecture import load_model
    from planner.comparison import compare_plans
    from planner.comparison.run import Cell, Planner, plan_all
    from planner.hardware import apply_settings

    if options.get("robust") == "workloads":
        raise InputError("is not built for comparisons", where="--robust workloads", mend="compare on one workload at a time")
    if equal and options.get("robust") == "intervals":
        raise InputError("has no one budget in the worst case", where="--equal", mend="leave out --robust intervals")
    several = list(model) if isinstance(model, Sequence) and not isinstance(model, str) else [model]
    models = [load_model(one) if isinstance(one, str) else one for one in several]
    split = [_at_runtime(one) if isinstance(one, str) else (one, None) for one in hardware]
    pools = [parse_hardware(one, folders) if isinstance(one, str) else _by_phase(one) for one, _ in split]
    names = [one if isinstance(one, str) else _label(found) for one, found in zip(hardware, pools, strict=True)]
    software = [{} if one is None else {"runtime": one} for _, one in split]
    flat = {f"{row} {phase}": found for row, each in enumerate(pools) for phase, found in each.items()}
    flat = apply_settings(flat, settings)
    pools = [{phase: flat[f"{row} {phase}"] for phase in each} for row, each in enumerate(pools)]
    cells = [Cell(one, *row) for one in models for row in zip(names, pools, software, strict=True)]
    planner = Planner(
        resolve=lambda subject, selections, own: resolve(subject, selections, **{**options, **own}),
        plan=lambda subject, selections, own: plan(subject, selections, **{**options, **own}, reporter=reporter, stop=stop),
    )
    planned = plan_all(cells, planner, equal=equal, stop=stop, beginning=beginning)
    return compare_plans(
        planned.candidates,
        models=[one.id for one in models],
        hardware=names,
        terms=planned.terms,
        budget=planned.budget,
        stopped=planned.stopped,
    )


def plan_mix(
    model: str | Model,
    inventory: str | Path | Inventory,
    *,
    budget_usd: float | None = None,
    folders: tuple[Path, ...] = (),
    reporter: Reporter | None = None,
    stop: Stop | None = None,
    **options: Any,
) -> Mix:
    """Which pools of an inventory to use, and how many units of each: the least USD an hour for ``rate`` or ``tokens_per_day``,
    or without them the most requests/s.

    Profiles that an inventory file names lie beside it. ``budget_usd`` limits the capital to buy with; ``max_usd_per_hour`` and
    ``max_power_kw`` hold for the fleet. Other ``options`` are those of ``plan``.

    Raises ``InputError``, ``InfeasibleError`` or ``StoppedError``.
    """
    from planner.hardware import load_hardware
    from planner.hardware.schema import RentBasis
    from planner.plans.context import build_context
    from planner.prices.inventory import load_inventory
    from planner.search.mix import Budget, Offer, offer_of
    from planner.search.mix import plan_mix as search_mix

    beside = Path(inventory).parent if isinstance(inventory, str | Path) else Path()
    known = load_inventory(Path(inventory)) if isinstance(inventory, str | Path) else inventory
    budget = Budget(budget_usd, options.pop("max_usd_per_hour", None), options.pop("max_power_kw", None))
    for name in ("concurrency", "devices", "pareto", "max_move_bytes"):
        if options.get(name) is not None:
            where = f"--{name.replace('_', '-')}"
            raise InputError("holds for one deployment, not for a fleet", where=where, mend="leave it out")
    if options.get("robust") == "workloads":
        raise InputError("is not built for fleets", where="--robust workloads", mend="give one --workload")
    if options.get("slo_on", "expected") != "expected":
        raise InputError("is not built for fleets", where="--slo-on high", mend="tighten --ttft and --tpot, or use --robust")
    offers: list[Offer] = []
    demand: float | None = None
    if options.get("prices") in get_args(RentBasis) or options.get("price_basis", "owned") != "owned":
        what = "the pools of an inventory say how they are paid for"
        raise InputError(what, where="--price-basis", mend="give rents as price = { usd_per_hour = … } of a pool")
    for pool in known.pool:
        try:
            name = str(beside / pool.hardware) if pool.hardware.endswith(".toml") else pool.hardware
            selection = load_hardware(f"{name}:{pool.systems}", folders=folders)
            inputs = resolve(model, selection, **options)
        except InputError as error:
            raise InputError(error.what, where=f"pool {pool.id}: {error.where}", mend=error.mend) from None
        demand = build_context(inputs).demand
        offers.append(offer_of(pool, inputs))
    return search_mix(known, offers, demand, budget, reporter, stop)


def audit(
    texts: str | Sequence[tuple[str, str]],
    hardware: str | HardwareSelection | dict[str, HardwareSelection],
    *,
    model: str | Model | None = None,
    engine: Engine | None = None,
    instances: Mapping[str, int] | None = None,
    runtime: str | Runtime | None = None,
    calibration: Path | None = None,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
    beginning: Callable[[str], None] | None = None,
    **options: Any,
) -> Audit:
    """What launch lines of vLLM or SGLang reach on hardware, what the best configuration reaches, and which flags lead there.

    ``texts``: shell text or a YAML configuration, or several with their names; nothing of it is run. ``model`` where the lines
    name none that is known; ``runtime``: the engine's own by default; ``instances`` by pool (``mixed``, ``prefill``, ``decode``)
    where the lines do not show them. ``options`` are those of ``plan``; several ``kv_dtype``, ``mtp`` or ``redundant_experts``
    are what the best configuration may choose from beside the given. ``beginning`` is told what is solved next.

    Raises ``InputError``, ``InfeasibleError`` where no configuration serves the workload, or ``StoppedError``.
    """
    from planner.architecture import load_model
    from planner.audit import audit as judge
    from planner.audit import read_deployment
    from planner.audit.read import known_model
    from planner.runtimes import calibrated_runtime, load_runtime

    given = read_deployment([("the text", texts)] if isinstance(texts, str) else texts, engine)
    subject = load_model(known_model(given) if model is None else model) if model is None or isinstance(model, str) else model
    pools = parse_hardware(hardware) if isinstance(hardware, str) else _by_phase(hardware)
    ascend = any(selection.system.vendor == "Huawei" for selection in pools.values())
    own = "vllm-ascend" if given.engine == "vllm" and ascend else given.engine
    software = calibrated_runtime(own if runtime is None else runtime, calibration)
    choices: dict[str, Any] = {name: options.pop(name) for name in ("kv_dtype", "mtp", "redundant_experts") if name in options}
    if choices.get("mtp") == "auto":
        choices["mtp"] = tuple(range(len(subject.speculation.acceptance) + 1)) if subject.speculation else ()
    choices = {name: (value,) if isinstance(value, str | int) else tuple(value) for name, value in choices.items()}

    def make(**changes: Any) -> Inputs:
        return resolve(subject, pools, **{**options, "runtime": software, **changes})

    return judge(
        given,
        make,
        load_runtime(own),
        options={**options, **choices},
        instances=instances,
        reporter=reporter,
        stop=stop,
        beginning=beginning,
    )
