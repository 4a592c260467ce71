"""``planner plan --from PLAN``: read the plan that serves now, and keep of it what the command line does not say anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import read_plan_argument

if TYPE_CHECKING:
    from planner.plans import Inputs, Plan
    from planner.workload import Workload

_DEMAND = ("rate", "tokens_per_day", "concurrency")
_SAME = (
    *("objective", "devices", "tiers", "weight_dtype", "kv_dtype", "mtp", "redundant_experts", "utilisation"),
    *("max_power_kw", "max_usd_per_hour", "allocation", "gap", "robust"),
)
_RULES = ("pins", "bans", "constraints_file")


def verified(name: str) -> Plan:
    """The plan in a file, or from standard input for ``-``; ``VerificationError`` where a number does not follow."""
    from planner.errors import VerificationError
    from planner.plans import Plan, verify_plan

    plan, where = read_plan_argument(name)
    assert isinstance(plan, Plan)
    violations, _ = verify_plan(plan, where)
    if violations:
        first = violations[0]
        what = f"{where}: violated: {first.equation}: {first.path}: expected {first.expected}, found {first.found}"
        raise VerificationError(what, [violation.as_dict() for violation in violations])
    return plan


def stated(context: click.Context) -> set[str]:
    """Parameters that the command line gives."""
    default = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    return {name for name in context.params if context.get_parameter_source(name) not in default}


def old_workload(inputs: Inputs) -> Workload:
    """The workload as it was asked for, its limits those on the slow end if they were."""
    options, workload = inputs.options, inputs.workload
    if not options.within_high:
        return workload
    return workload.model_copy(update={"ttft_s": options.high_ttft_s, "tpot_s": options.high_tpot_s})


def kept(inputs: Inputs, given: set[str]) -> dict[str, Any]:
    """Arguments of ``planner.plan`` that stay as they were; those of the workload apart."""
    options = inputs.options
    same: dict[str, Any] = {name: getattr(options, name) for name in _SAME if name not in given}
    if "model" not in given:
        same["model"] = inputs.model
    if "hardware" not in given:
        same |= {"hardware": dict(inputs.hardware), "allow_announced": True}
    if "runtime" not in given:
        same["runtime"] = inputs.runtime
    if not given & {"price_basis", "site"}:
        same |= {"prices": inputs.prices, "site": None, "price_basis": options.price_basis}
        same |= {} if "price_date" in given else {"price_date": options.price_date}
    if not given & set(_DEMAND):
        same |= {name: getattr(options, name) for name in _DEMAND}
    if "spare" not in given:
        same |= {"spare": options.spare, "spare_of": options.spare_of}
    if not given & set(_RULES):
        same["constraints"] = options.constraints
    if "slo_on" not in given and options.within_high:
        same["slo_on"] = "high"
    return same
