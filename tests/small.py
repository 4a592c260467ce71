"""Small instances for the tests of laws, search and placement: a few devices, tiny models, few batches, real code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from planner.api import resolve
from planner.architecture import Model
from planner.architecture.importer import model_from_config
from planner.hardware import HardwareSelection, System, load_hardware
from planner.hardware.channels import Channel
from planner.plans.inputs import Inputs
from planner.plans.lp import Array, LinearProgram
from planner.quantities import Figure
from planner.runtimes import Runtime, load_runtime
from planner.workload import Workload, load_workload


def llama(
    layers: int = 4, hidden: int = 512, heads: int = 4, kv_heads: int = 2, inner: int = 1024, vocabulary: int = 1024
) -> Model:
    """A dense model of a few million parameters."""
    config = {
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocabulary, "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    return model_from_config(config, "small", "small-llama")


def experts(layers: int = 3, count: int = 8, active: int = 2) -> Model:
    """A mixture of experts with latent attention."""
    config = {
        "model_type": "deepseek_v3", "hidden_size": 512, "vocab_size": 1024, "num_hidden_layers": layers,
        "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "intermediate_size": 1024, "num_attention_heads": 4,
        "q_lora_rank": 128, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
        "first_k_dense_replace": 1, "moe_layer_freq": 1, "moe_intermediate_size": 512, "n_routed_experts": count,
        "n_shared_experts": 1, "num_experts_per_tok": active, "n_group": 2, "topk_group": 1, "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 1,
    }  # fmt: skip
    return model_from_config(config, "small", "small-experts")


def moved(figure: Figure, factor: float) -> Figure:
    """A figure with value and interval scaled."""
    ends = {key: None if getattr(figure, key) is None else getattr(figure, key) * factor for key in ("value", "low", "high")}
    return figure.model_copy(update=ends)


def exactly(figure: Figure, value: float) -> Figure:
    """A figure of that value with its interval in proportion."""
    if figure.value:
        return moved(figure, value / figure.value)
    return figure.model_copy(update={"value": value, "low": value, "high": value})


def node(
    devices: int = 2, unit: int = 1, memory_bytes: float = 100e6, host_bytes: float = 1e9, host_bytes_per_s: float = 50e9
) -> System:
    """A node of ``devices`` H100-like devices with little memory, a host memory and a disk, and a scale-out network."""
    base = load_hardware("h100-node").system
    tiers = []
    for tier in base.tiers:
        if tier.role == "device":
            startup = tier.startup and moved(tier.startup, 0.02)  # as the floors of ``runtime``
            tiers.append(tier.model_copy(update={"usable": exactly(tier.usable, memory_bytes), "startup": startup}))
            continue
        changes: dict[str, Any] = {"devices_sharing": devices}
        if tier.role == "host":
            changes["usable"] = exactly(tier.usable, host_bytes * devices)
            changes["read"] = exactly(tier.read, host_bytes_per_s * devices)
        tiers.append(tier.model_copy(update=changes))
    links = []
    for link in base.links:
        sharing = min(link.devices_sharing, devices)
        bandwidth = moved(link.bandwidth, sharing / link.devices_sharing)
        links.append(link.model_copy(update={"devices_sharing": sharing, "bandwidth": bandwidth}))
    domains = tuple(d if d.devices is None else d.model_copy(update={"devices": devices}) for d in base.domains)
    if devices == 1:
        domains = domains[1:]
    changed = base.model_copy(
        update={
            "id": "small-node", "aliases": (), "devices": devices, "devices_per_node": devices, "purchasable_devices": unit,
            "tiers": tuple(tiers), "links": tuple(links), "domains": domains,
        }
    )  # fmt: skip
    return System.model_validate(changed.model_dump(mode="json"), context={"si": True})


def channels(**bytes_per_s: float) -> tuple[Channel, ...]:
    """Channels that reads and writes share, by their rate."""
    return tuple(Channel(name, 1.0 / rate, 1.0 / rate) for name, rate in bytes_per_s.items())


def runtime(batches: int = 6, chunks: tuple[int, ...] = (64, 256), **changes: Any) -> Runtime:
    """The generic runtime with overheads and reserves in proportion to the small models."""
    base = load_runtime("generic")
    floors = base.floors.model_copy(update={name: moved(figure, 0.02) for name, figure in base.floors})
    issue = base.issue.model_copy(update={name: moved(figure, 0.02) for name, figure in base.issue}) if base.issue else None
    reserve = {name: moved(figure, 1e-3) for name, figure in base.reserve if name in ("context", "graphs", "communication")}
    return base.model_copy(
        update={
            "id": "small", "floors": floors, "issue": issue, "reserve": base.reserve.model_copy(update=reserve),
            "page_tokens": 16, "batch_buckets": (1, 2, 4), "max_sequences_per_rank": batches, "prefill_tokens": chunks, **changes,
        }
    )  # fmt: skip


def workload(
    isl: float = 256, osl: float = 64, ttft_s: float | None = None, tpot_s: float | None = None, hit: float = 0.0
) -> Workload:
    """Constant lengths."""
    base = load_workload("interactive")
    lengths = {"input_tokens": base.input_tokens.model_copy(update={"mean": isl, "median": None}),
               "output_tokens": base.output_tokens.model_copy(update={"mean": osl, "median": None})}  # fmt: skip
    return base.model_copy(update={"id": "small", "ttft_s": ttft_s, "tpot_s": tpot_s, "prefix_hit": hit, **lengths})


def instance(
    model: Model, system: System, count: int = 1, load: Workload | None = None, software: Runtime | None = None, **options: Any
) -> Inputs:
    """Inputs of a small planning problem."""
    selection = HardwareSelection(system=system, count=count)
    return resolve(model, selection, workload=load or workload(), runtime=software or runtime(), **options)


# --- an independent way to solve linear programs ------------------------------------------------------------------


def simplex(program: LinearProgram) -> tuple[float, Array] | None:
    """``(optimum, values)`` by a dense two-phase tableau (steepest column, then Bland's rule); ``None`` if infeasible."""
    rows, columns = program.matrix.shape
    matrix = np.hstack([program.matrix, np.diag(np.where(program.equal, 0.0, 1.0))])
    limit = program.limit.astype(float).copy()
    scale = np.maximum(np.abs(matrix).max(axis=1), 1e-300)
    matrix, limit = matrix / scale[:, None], limit / scale
    flip = limit < 0
    matrix[flip], limit[flip] = -matrix[flip], -limit[flip]
    total = matrix.shape[1]
    tableau = np.hstack([matrix, np.eye(rows), limit[:, None]])
    basis = list(range(total, total + rows))
    cost = np.concatenate([np.zeros(total), np.ones(rows)])
    if not _pivot(tableau, basis, cost, total + rows):
        raise ArithmeticError("unbounded")
    if sum(tableau[i, -1] for i, b in enumerate(basis) if b >= total) > 1e-9:
        return None
    for i, b in enumerate(basis):
        if b >= total:
            free = np.flatnonzero(np.abs(tableau[i, :total]) > 1e-9)
            if len(free):
                _step(tableau, basis, i, int(free[0]))
    cost = np.concatenate([program.cost, np.zeros(rows), np.zeros(rows)])
    if not _pivot(tableau, basis, cost, total):
        raise ArithmeticError("unbounded")
    values = np.zeros(total + rows)
    values[basis] = tableau[:, -1]
    return float(program.cost @ values[:columns]), values[:columns]


def _step(tableau: Array, basis: list[int], row: int, column: int) -> None:
    tableau[row] /= tableau[row, column]
    others = np.arange(len(basis)) != row
    tableau[others] -= np.outer(tableau[others, column], tableau[row])
    basis[row] = column


def _pivot(tableau: Array, basis: list[int], cost: Array, allowed: int) -> bool:
    for step in range(20_000):
        reduced = cost[:allowed] - cost[basis] @ tableau[:, :allowed]
        enter = np.flatnonzero(reduced < -1e-10)
        if not len(enter):
            return True
        column = int(enter[0] if step > 300 else enter[np.argmin(reduced[enter])])
        positive = np.flatnonzero(tableau[:, column] > 1e-11)
        if not len(positive):
            return False
        ratios = tableau[positive, -1] / tableau[positive, column]
        least = ratios.min()
        ties = positive[ratios <= least + 1e-13]
        _step(tableau, basis, int(min(ties, key=lambda i: basis[i])), column)
    raise ArithmeticError("no end")


# --- plain data ---------------------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], int | float]]:
    """Every number in plain data with its path; booleans are none."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def changed(value: Any, path: tuple[str | int, ...], leaf: int | float) -> Any:
    """A copy of plain data with one leaf replaced; what is untouched is shared."""
    if not path:
        return leaf
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], leaf)
    return copy
