"""Public measurements of offload that did or did not pay, each with the planner's figure for the same case.

A pool is put into the case's configuration (no search), with everything in device memory whatever its room; then an item is moved
as ``planner explain`` moves it. What a source leaves open is said with the case here and below the table of
docs/offload.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import cache

from planner.api import plan, resolve
from planner.economics.classes import PICOJOULES_PER_BIT
from planner.hardware import HardwareSelection, load_hardware
from planner.plans import Plan, build_context
from planner.plans.constraints import Constraint
from planner.plans.decision import PoolDecision
from planner.plans.states import PoolState, pool_passes, problem_with_tiers
from planner.plans.tier_rows import moved_joules, moved_per_token
from planner.plans.tiers import evaluate_shares, resident_shares
from planner.plans.unused import moved_to
from planner.quantities import Figure
from planner.search.tier_lp import solve_tiers
from planner.workload import Workload, load_workload
from planner.workload.prefix import PrefixCache


def shape(isl: float, osl: float) -> Workload:
    """Constant lengths without limits."""
    base = load_workload("interactive")
    lengths = {"input_tokens": base.input_tokens.model_copy(update={"mean": isl, "median": None}),
               "output_tokens": base.output_tokens.model_copy(update={"mean": osl, "median": None})}  # fmt: skip
    return base.model_copy(update={"ttft_s": None, "tpot_s": None, **lengths})


def pool(model: str, hardware: str, runtime: str, load: Workload, decision: PoolDecision) -> PoolState:
    """A pool in a configuration, everything in device memory."""
    inputs = resolve(model, hardware, workload=load, runtime=runtime)
    context = build_context(inputs).pool(decision.phase)
    mine = replace(decision, basis="")
    state = PoolState(mine, context, pool_passes(context, mine))
    problem = problem_with_tiers(state)
    return replace(state, built=problem, placed=resident_shares(problem))


def serving(model: str, hardware: str, tp: int, batch: int, runtime: str = "vllm", isl: float = 256.0) -> PoolState:
    """One instance of ``tp`` devices that decodes ``batch`` sequences of 256 tokens out."""
    return pool(model, hardware, runtime, shape(isl, 256.0), PoolDecision("mixed", 1, tp, 1, 1, 1, batch, 1024))


def moved(state: PoolState, tier: str, item: str, mode: str) -> PoolState:
    """All of an item there, and come by that mode."""
    rate = next(one for one in state.pool.rates.tiers if one.id == tier)
    found = moved_to(state.problem, state.shares, rate, item, mode)
    assert found is not None and found[2] == 1.0
    return replace(state, placed=found[1])


def step(state: PoolState) -> float:
    """Seconds of a decode step."""
    return evaluate_shares(state.problem, state.shares).phase_s["decode"] * state.pool.rates.residual


def slower(state: PoolState, tier: str, item: str, mode: str) -> float:
    """By what factor a decode step is longer with all of an item there."""
    return step(moved(state, tier, item, mode)) / step(state)


def joules(state: PoolState, tier: str, item: str, mode: str) -> float:
    """Joules a decoded token takes for what is moved."""
    there = moved(state, tier, item, mode)
    rate = next(one for one in state.pool.rates.tiers if one.id == tier)
    per_token = moved_per_token(there, there.problem, there.shares, rate, "decode")[0]
    found = moved_joules(per_token, rate.kind, state.pool.rates.memory_kind)
    assert found is not None
    return found


# --- the cases ----------------------------------------------------------------------------------------------------


H100_BYTES_PER_S = 3.35e12
"""HBM of an H100 SXM (NVIDIA's data sheet)."""


def weights_that_fit(isl: float = 256.0) -> float:
    """All routed experts (36 GB a device) in host memory, of which kernels read what is woken."""
    return slower(serving("deepseek-v4.1-flash", "h20-node", 8, 64, isl=isl), "host", "routed experts", "fetch")


def experts_on_ssd(idle_watts: float = 0.0) -> float:
    """Energy of a token with the woken experts read from SSD over that with all weights in HBM, batch 1. 37e9 parameters are read
    (arXiv 2412.19437), one byte each; ``idle_watts`` of a device for as long as the HBM of the source's H100 takes to read them,
    since the source hides the drive's time."""
    state = serving("deepseek-v3", "h200-node", 8, 1, "generic", 4096.0)
    drive = joules(state, "ssd", "routed experts", "fetch")
    woken, every = 58 * 8 * 3 * 7168 * 2048, 37e9
    idle = idle_watts * every / H100_BYTES_PER_S
    joules_per_byte = 8 * PICOJOULES_PER_BIT["hbm"].value * 1e-12
    resident = every * joules_per_byte
    return (resident - woken * joules_per_byte + drive + idle) / (resident + idle)


def table_inside_the_pass(streams: int) -> float:
    """Rows from SSD inside the pass against gathered before it."""
    state = serving("deepseek-v4.1-flash", "rtx-pro-6000-node", 2, streams)
    return step(moved(state, "ssd", "Engram table", "fetch")) / step(moved(state, "ssd", "Engram table", "prefetch"))


def table_in_host_memory(model: str, mode: str = "prefetch") -> float:
    """Throughput kept with the table in host memory. Of the source's 512 sequences of 100 to 1,024 tokens (562 on average) 256
    are taken to decode at once, with 256 tokens out."""
    return 1.0 / slower(serving(model, "h800-node", 1, 256, "generic", 562.0), "host", "Engram table", mode)


def prefill_pool(model: str, devices: int, chunk: int = 16384) -> PoolState:
    """A prefill instance of GB200, experts and attention spread over its devices; prompts of 2,048 tokens, as the source's."""
    return pool(
        model, "gb200-nvl72", "generic", shape(2048.0, 1024.0), PoolDecision("prefill", 1, 1, devices, devices, 1, 0, chunk)
    )


def prefilled(model: str, devices: int, chunk: int = 16384) -> tuple[float, float]:
    """``(tokens/s of a device, GB of a device in host memory)`` in the best placement."""
    state = prefill_pool(model, devices, chunk)
    found = solve_tiers(state.problem)
    assert found is not None
    shares = found.point.values[: len(state.problem.choices)]
    below = 0.0
    for choice, share in zip(state.problem.choices, shares, strict=True):
        item = state.problem.items[choice.item]
        below += item.held * state.problem.stages[choice.stage][item.window] * float(share) if choice.tier == "host" else 0.0
    return chunk / evaluate_shares(state.problem, shares).phase_s["prefill"] / state.pool.rates.residual, below / 1e9


AGENT = load_workload("agent")


def agents(gap_s: float) -> Workload:
    """DualPath's agents (32.7K of context, 98.7 % of it found again) that come back after ``gap_s`` seconds: for every request a
    second so many sessions wait, each with its context."""
    curve = PrefixCache(curve=((32_700.0 * gap_s, 0.987),), source=AGENT.source, as_of=date(2026, 2, 25), grade="D")
    return AGENT.model_copy(update={"id": "agents", "prefix_hit": 0.0, "prefix_cache": curve})


@cache
def kept(*tiers: str) -> Plan:
    """DeepSeek-V3 for agents that come back after five minutes, on eight H200 with these memories."""
    return plan("deepseek-v3", "h200-node", workload=agents(300.0), tiers=tiers)


def storage_times(selection: HardwareSelection, factor: float) -> HardwareSelection:
    """The system with its drives, and the way to them, so many times as fast."""

    def scaled(figure: Figure) -> Figure:
        ends = {key: getattr(figure, key) * factor for key in ("value", "low", "high") if getattr(figure, key) is not None}
        return figure.model_copy(update=ends)

    system = selection.system
    tiers = tuple(t.model_copy(update={"read": scaled(t.read)}) if t.role == "disk" else t for t in system.tiers)
    links = tuple(x.model_copy(update={"bandwidth": scaled(x.bandwidth)}) if x.id == "nvme" else x for x in system.links)
    return selection.model_copy(update={"system": system.model_copy(update={"tiers": tiers, "links": links})})


def two_paths() -> float:
    """Requests/s of a prefill and a decode node with the prefill node's storage twice as fast (as through the decode node too),
    over those without. Only HBM and the drives hold entries; how each node is split, which the source does not say, is pinned."""
    rules = (
        "serving=disaggregated",
        "prefill.devices=8",
        "decode.devices=8",
        "prefill.tp=8",
        "decode.tp=2",
        "decode.attention_dp=4",
    )
    pins = tuple(Constraint(name=rule, sort="pin", rule=rule) for rule in rules)
    found = [
        plan(
            "deepseek-v3.2",
            storage_times(load_hardware("h200-node:2"), factor),
            workload=agents(60.0),
            tiers=("hbm", "ssd"),
            objective="throughput",
            constraints=pins,
        ).prediction.requests_per_s
        for factor in (1.0, 2.0)
    ]
    return found[1] / found[0]


@dataclass(frozen=True)
class Case:
    """``said``: the source's figure; ``figure``: of the planner."""

    name: str
    source: str
    said: float
    unit: str
    figure: Callable[[], float]

    def row(self) -> str:
        """The row of the table in docs/offload.md."""
        value = self.figure()
        digits = 0 if self.said >= 1000 else 3 if self.said < 1 else 2 if self.said < 10 else 1
        said, ours = (f"{number:,.{digits}f} {self.unit}" for number in (self.said, value))
        return f"| {self.name} | {self.source} | {said} | {ours} | {value / self.said:.2f} |"


SLOWER, MORE, KEPT, RATE = "times slower", "times the energy", "of the throughput", "tokens/s a device"

CASES = (
    Case(
        "weights that fit in host memory: DeepSeek-V4.1-Flash, 8 H20, 35 GB a device, 64 requests, 2,434 to 120 tokens/s",
        "[vllm-project/vllm#42284](https://github.com/vllm-project/vllm/issues/42284), comment of 2026-09-20",
        2434 / 120,
        SLOWER,
        weights_that_fit,
    ),
    Case(
        "experts on SSD, batch 1: DeepSeek-R1, energy of the memories",
        "[arXiv 2508.06978](https://arxiv.org/abs/2508.06978), \"up to\"",
        12.0,
        MORE,
        experts_on_ssd,
    ),
    Case(
        "the same with the 70 W and 57 W that a device and its DRAM take idle",
        "[arXiv 2508.06978](https://arxiv.org/abs/2508.06978)",
        12.0,
        MORE,
        lambda: experts_on_ssd(70.0 + 57.0),
    ),
    Case(
        "Engram rows from SSD inside the pass: DeepSeek-V4.1-Flash, 2 RTX PRO 6000, 1 stream, 80.2 to 26.1 tokens/s",
        "[nktlabs](https://huggingface.co/nktlabs/dsv41-flash-engram-disk-prestage)",
        80.2 / 26.1,
        SLOWER,
        lambda: table_inside_the_pass(1),
    ),
    Case(
        "the same, 4 streams, 229.2 to 107.6 tokens/s",
        "[nktlabs](https://huggingface.co/nktlabs/dsv41-flash-engram-disk-prestage)",
        229.2 / 107.6,
        SLOWER,
        lambda: table_inside_the_pass(4),
    ),
    Case(
        "an Engram table of 100e9 parameters in host memory: 4B model on H800, 9,031.62 to 8,858.28 tokens/s",
        "[arXiv 2601.07372](https://arxiv.org/abs/2601.07372) table 4",
        8858.28 / 9031.62,
        KEPT,
        lambda: table_in_host_memory("engram-dense-4b-100b"),
    ),
    Case(
        "the same, 8B model, 6,315.52 to 6,140.02 tokens/s",
        "[arXiv 2601.07372](https://arxiv.org/abs/2601.07372) table 4",
        6140.02 / 6315.52,
        KEPT,
        lambda: table_in_host_memory("engram-dense-8b-100b"),
    ),
    Case(
        "prefill of DeepSeek-V3 in NVFP4 on 2 GB200, weights that do not fit streamed over C2C",
        "[LMSYS, 2025-09-25](https://lmsys.org/blog/2025-09-25-gb200-part-2/)",
        26_156.0,
        RATE,
        lambda: prefilled("deepseek-v3-nvfp4", 2)[0],
    ),
    Case(
        "prefill of DeepSeek-V3 in FP8 on 4 GB200",
        "[LMSYS, 2025-09-25](https://lmsys.org/blog/2025-09-25-gb200-part-2/)",
        18_471.0,
        RATE,
        lambda: prefilled("deepseek-v3", 4)[0],
    ),
    Case(
        "agents' caches on SSD, read over two nodes' storage ports in place of one: DeepSeek-V3.2, one node each, offline",
        "[arXiv 2602.21548](https://arxiv.org/abs/2602.21548), best of its offline gains",
        1.87,
        "times the throughput",
        two_paths,
    ),
)  # fmt: skip
