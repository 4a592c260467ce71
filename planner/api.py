"""The public functions: the only place where rooms are wired together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from planner.documents import explain_validation
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.architecture import Model
    from planner.hardware import HardwareSelection, Site
    from planner.plans.inputs import Inputs
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
    **options: Any,
) -> Inputs:
    """Names to resolved inputs. ``options`` are the fields of ``planner.plans.Options``; the rest as in ``plan``."""
    from planner.architecture import load_model
    from planner.hardware import apply_settings, load_site, with_estimates
    from planner.plans.inputs import Inputs, Options
    from planner.plans.needs import refuse_unknown
    from planner.plans.robust import refuse_sets
    from planner.prices import at_site, load_prices
    from planner.runtimes import calibrated_runtime
    from planner.workload import Workload, load_workload

    pools = (
        parse_hardware(hardware)
        if isinstance(hardware, str)
        else _in_order(hardware)
        if isinstance(hardware, dict)
        else {"mixed": hardware}
    )
    for selection in pools.values():
        system = selection.system
        if system.status == "cancelled":
            raise InputError(f"{system.id} was cancelled", where="hardware", mend="choose a part that exists")
        if system.status == "announced" and not allow_announced:
            raise InputError(f"{system.id} is announced, not shipping", where="hardware", mend="add --allow-announced")
    pools = {phase: with_estimates(selection) for phase, selection in apply_settings(pools, settings).items()}
    subject = load_model(model) if isinstance(model, str) else model
    if options.get("mtp") == "auto":
        depth = len(subject.speculation.acceptance) if subject.speculation else 0
        options["mtp"] = tuple(range(depth + 1))
    given = [workload] if isinstance(workload, str | Workload) else list(workload)
    loads = tuple(load_workload(one) if isinstance(one, str) else one for one in given)
    refuse_sets(loads, options.get("robust") == "workloads")
    load = loads[0]
    if slo_on == "high":
        options |= {"high_ttft_s": load.ttft_s, "high_tpot_s": load.tpot_s}
        if load.ttft_s is None and load.tpot_s is None:
            raise InputError("the workload has no limits", where="--slo-on high", mend="give --ttft or --tpot")
    basis = load_prices(prices) if isinstance(prices, str) else prices
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
            options=Options(**options),
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
    **options: Any,
) -> Plan:
    """The best deployment of a model on hardware for a workload, with a proved gap.

    ``model``, ``hardware``, ``workload``, ``runtime`` and ``prices`` are names, paths or loaded objects; ``options`` are the
    fields of ``planner.plans.Options`` (objective, devices, tiers, weight_dtype, kv_dtype, mtp, concurrency, gap …).
    ``workload`` may be several with ``robust="workloads"``: one deployment for all of them, best for the one that fares worst.
    ``calibration``: a file of ``planner calibrate`` to lay over the runtime in place of the built-in one.
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
    """``(violations, notices)`` of a plan or its JSON text; see ``planner.plans.verify_plan``."""
    from planner.errors import VerificationError
    from planner.plans import Violation, read_plan, verify_plan

    try:
        return verify_plan(read_plan(plan, where) if isinstance(plan, str) else plan, where, full=full)
    except VerificationError as error:
        return [Violation(str(v["path"]), str(v["equation"]), v["expected"], v["found"]) for v in error.violations], []


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
