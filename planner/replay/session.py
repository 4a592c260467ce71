"""``planner simulate``: a plan and the traffic that was asked for, to the figures of the replay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from planner.errors import InputError
from planner.plans.arrivals import AtLoad, arrivals_of
from planner.plans.schema import Plan
from planner.replay.deploy import Deployment, deploy
from planner.replay.measure import Asked, Bound, measure
from planner.replay.parts import Request
from planner.replay.run import serve
from planner.replay.schema import Replayed
from planner.replay.traffic import Arrival, drawn_requests, trace_requests
from planner.workload import Workload
from planner.workload.traces import Trace

DRAWN_REQUESTS = 10_000
TURNS, MOST_DRAWN = 20, 200_000
"""Requests for each one in flight, at least, so that the start does not count; and most that are drawn unasked."""
MOST_REQUESTS = 1_000_000
WARM_UP = 0.2
"""Share of drawn requests that do not count: the machine is empty when the first comes."""
REACH = 4
"""Tables reach so many times the tokens that the plan reserves for a request; beyond they go on in a line."""


@dataclass(frozen=True)
class Load:
    """What to replay: a trace, or draws of a workload (``None``: the plan's own) at a rate or with so many clients."""

    trace: Trace | None = None
    workload: Workload | None = None
    rate_per_s: float | None = None
    clients: int | None = None
    requests: int | None = None
    seed: int = 0
    scale_rate: float = 1.0
    warm_up: float | None = None
    constant: bool = False
    cache_blocks: float | None = None
    prefill_wait_s: float | None = None
    """Instead of what the plan's passes wait for other ranks."""
    ttft: tuple[Bound, ...] = ()
    tpot: tuple[Bound, ...] = ()


def deployed(plan: Plan, where: str) -> Deployment:
    """A plan ready to take requests of any length."""
    from planner.plans.read import inputs_of

    return deploy(plan, where, REACH * float(inputs_of(plan, where).workload.reserved_tokens))


def _patient(deployment: Deployment, load: Load, rate: float) -> Deployment:
    """The deployment as it waits for its ranks: as asked, or as the plan does at so many requests/s."""
    wait_s = load.prefill_wait_s
    if wait_s is None:
        wait_s = arrivals_of(deployment.operation).wait_s(rate)
    elif not deployment.sites[0].steps:
        what = "holds for prefill beside decode, and this plan has a pool for each"
        raise InputError(what, where="--prefill-wait", mend="leave it out")
    return replace(deployment, sites=tuple(replace(site, patience_s=wait_s) for site in deployment.sites))


def simulate(deployment: Deployment, load: Load, progress: Callable[[int, int], None] | None = None) -> Replayed:
    """Replay a load through a deployment. The same arguments give the same figures."""
    if load.trace is not None:
        return _traced(deployment, load, load.trace, progress)
    planned = deployment.context.inputs.workload
    workload, notes = planned, list[str]()
    if load.workload is not None:
        workload = load.workload
        if workload.prefix_cache is not None:
            workload = workload.at_hit(planned.prefix_hit)
            notes.append(f"prefix hits of the plan ({planned.prefix_hit:.1%}): a workload names no blocks")
    rate, clients, variation = load.rate_per_s, load.clients, 1.0
    if rate is None and clients is None:
        if deployment.context.demand is None:
            clients = max(round(deployment.operation.concurrency), 1)
        else:
            rate = deployment.operation.requests_per_s
    if rate is not None:
        rate *= load.scale_rate
        if workload.arrivals is not None and workload.arrivals.variation is not None:
            variation = max(workload.arrivals.variation, 1e-3)
            notes.append(f"times between arrivals vary as in the workload's trace ({variation:.3g} of their mean), drawn gamma")
    deployment = _patient(deployment, load, deployment.operation.requests_per_s if rate is None else rate)
    flight = round(deployment.operation.concurrency) if clients is None else clients
    count = load.requests or min(max(DRAWN_REQUESTS, TURNS * flight), MOST_DRAWN)
    longest = min(deployment.context.inputs.model.max_context, 2**24)
    drawn = drawn_requests(workload, Arrival(rate, variation, clients), count, load.seed, longest, load.constant)
    served = serve(deployment, drawn, clients=clients, cache_blocks=load.cache_blocks, progress=_counted(progress, count))
    asked = Asked(
        source=workload.id,
        kind="open loop" if clients is None else "closed loop",
        rate_per_s=rate,
        variation=variation if clients is None else None,
        clients=clients,
        seed=load.seed,
        scale_rate=load.scale_rate,
        warm_up=WARM_UP if load.warm_up is None else load.warm_up,
        ttft=_bounds(load.ttft, workload.ttft_s),
        tpot=_bounds(load.tpot, workload.tpot_s),
    )
    theory: AtLoad | None = None
    if rate is not None and variation == 1.0:
        theory = arrivals_of(deployment.operation, workload, deployment.sites[0].patience_s).at(rate)
    return measure(replace(deployment, notes=(*deployment.notes, *notes)), served, asked, theory)


def _traced(deployment: Deployment, load: Load, trace: Trace, progress: Callable[[int, int], None] | None) -> Replayed:
    if load.rate_per_s is not None or load.clients is not None:
        where = "--concurrency" if load.rate_per_s is None else "--rate"
        raise InputError("a trace says itself when requests come", where=where, mend="use --scale-rate, or leave it out")
    deployment = _patient(deployment, load, deployment.operation.requests_per_s * load.scale_rate)
    most, notes = load.requests or MOST_REQUESTS, list[str]()
    size = trace.block_tokens
    counted = _Longest(trace_requests(trace, most + 1, load.scale_rate), most)
    served = serve(
        deployment,
        iter(counted),
        block_tokens=size or 1,
        cache_blocks=load.cache_blocks,
        progress=_counted(progress, load.requests or 0),
    )
    planned = deployment.context.inputs.workload
    limit = deployment.context.inputs.model.max_context
    if counted.longest > limit:
        notes.append(f"the longest request has {counted.longest:,} tokens, more than the {limit:,} that the model was made for")
    if size is not None and deployment.spare_tokens is not None and load.cache_blocks is None:
        notes.append("the plan keeps no prefix cache: blocks stay in device memory while running requests leave room")
    if size is None:
        notes.append("the trace names no blocks, so no prefix is found again")
    if counted.more and load.requests is None:
        notes.append(f"only the first {MOST_REQUESTS:,} requests were replayed, which is the most; cut the trace for others")
    asked = Asked(
        source=trace.path.name,
        kind="trace",
        scale_rate=load.scale_rate,
        warm_up=load.warm_up or 0.0,
        block_tokens=size,
        ttft=_bounds(load.ttft, planned.ttft_s),
        tpot=_bounds(load.tpot, planned.tpot_s),
    )
    return measure(replace(deployment, notes=(*deployment.notes, *notes)), served, asked)


class _Longest:
    """As many requests passed on, the longest remembered, and whether there are more."""

    def __init__(self, requests: Iterator[Request], most: int) -> None:
        self._requests, self._most, self.longest, self.more = requests, most, 0, False

    def __iter__(self) -> Iterator[Request]:
        for number, request in enumerate(self._requests):
            if number == self._most:
                self.more = True
                return
            self.longest = max(self.longest, request.reserved)
            yield request


def _bounds(given: tuple[Bound, ...], limit_s: float | None) -> tuple[Bound, ...]:
    """The limits that were given, or the workload's on the mean."""
    if given or limit_s is None or not math.isfinite(limit_s):
        return given
    return (Bound(limit_s),)


def _counted(progress: Callable[[int, int], None] | None, of: int) -> Callable[[int], None] | None:
    return None if progress is None else (lambda done: progress(done, of))
