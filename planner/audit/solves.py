"""Plans of one audit: at the pins of the given flags, and with some of them free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from planner.audit.configuration import Setup
from planner.audit.pins import Pin, counted_instances, host_settings, memory_roles, named_apart, pins_of, present_roles
from planner.errors import InfeasibleError, StoppedError
from planner.plans.constraints import Constraint
from planner.plans.inputs import Inputs
from planner.plans.schema import Plan
from planner.reporter import Reporter
from planner.runtimes import Runtime
from planner.search import Stop, solve


class Resolve(Protocol):
    """``planner.api.resolve`` with all but these arguments bound."""

    def __call__(self, **options: Any) -> Inputs: ...


@dataclass
class Judge:
    """Solves of one audit, each once. ``memory``: settings with the bytes of device memory that plans may use, ``host``: of host
    memory."""

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
        given = {**self.limits, "tiers": tiers, "runtime": self.runtime, "constraints": (*self.asked, *placed, *named_apart(own))}
        return self.make(**{**given, **variant, "settings": settings, **more})

    def explained(self, free: frozenset[str]) -> Plan | InfeasibleError:
        """As ``plan``, with the conflict where there is none."""
        found = self.plan(free)
        if isinstance(found, InfeasibleError) and not found.conflict:
            try:
                solve(self.inputs(free), self.reporter, self.stop)
            except InfeasibleError as error:
                self.solved[free] = found = error
        return found

    def plan(self, free: frozenset[str]) -> Plan | InfeasibleError:
        """The best plan with these axes free, or that there is none; ``StoppedError`` where the time is up."""
        if free not in self.solved:
            if self.stop.reason():
                raise StoppedError("stopped before every change was tried")
            try:
                self.solved[free] = solve(self.inputs(free), self.reporter, self.stop, explain=False)
            except InfeasibleError as error:
                self.solved[free] = error
        return self.solved[free]


def judge_of(
    setup: Setup,
    base: Inputs,
    make: Resolve,
    options: Mapping[str, Any],
    instances: Mapping[str, int] | None,
    reporter: Reporter | None,
    stop: Stop,
) -> Judge:
    """A judge of one configuration; ``base``: the inputs without its pins."""
    chunks = {pool.chunk for pool in setup.pools if pool.chunk is not None}
    batches = [pool.batch for pool in setup.pools if pool.batch is not None and "batch_per_rank" not in pool.assumed]
    most = max([base.runtime.max_sequences_per_rank, *batches])
    changed = {
        "prefill_tokens": tuple(sorted({*base.runtime.prefill_tokens, *chunks})),
        "max_sequences_per_rank": min(most, 65536),
    }
    counted = counted_instances(setup, instances)
    total = sum(counted[pool.phase] * pool.devices for pool in setup.pools) if counted else None
    pins, always = pins_of(setup, base, counted)
    within, reach = memory_roles(setup, base, present_roles(base))
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
        host=host_settings(setup, base),
    )
