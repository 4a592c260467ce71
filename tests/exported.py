"""The plans that exporters are tried on, each made once a process."""

from functools import cache

import small

from planner import plan
from planner.export import EngineDeployment, engine_deployment
from planner.plans.constraints import parse_constraints
from planner.plans.schema import Plan
from planner.search import solve
from planner.workload.experts import ExpertPopularity

CASES = {
    "v3-h800": ("deepseek-v3", "h800-node:4", ()),
    "v4-pro-gb200": ("deepseek-v4-pro", "gb200-nvl72", ()),
    "v4.1-flash-gb300": ("deepseek-v4.1-flash", "gb300-nvl72", ("Engram table@hbm",)),
    "v3-cm384": ("deepseek-v3", "cloudmatrix384", ()),
}


@cache
def made(name: str) -> Plan:
    """The plan of a case."""
    model, hardware, bans = CASES[name]
    return plan(model, hardware, constraints=parse_constraints((), bans))


@cache
def deployment(name: str) -> EngineDeployment:
    """Its engine deployment."""
    return engine_deployment(made(name))


@cache
def skewed() -> EngineDeployment:
    """Eight experts used unevenly on four ranks with a redundant slot each; the first of six layers is dense."""
    load = small.workload().model_copy(update={"experts": ExpertPopularity(kind="zipf", exponent=2.0)})
    software = small.runtime(3, (64, 256), uneven_replicas=False)
    rules = parse_constraints(("ep=4",), ())
    machine = small.node(4, 1, 25e6)
    inputs = small.instance(small.experts(6), machine, 1, load, software, constraints=rules, redundant_experts=(1,))
    return engine_deployment(solve(inputs))
