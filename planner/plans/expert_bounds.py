"""Whole experts on devices: what a map costs, whether it is one, and a bound that no map can beat.

A layer has E experts with loads ``w`` and D devices of S slots, so ``R = D*S - E`` spare slots hold further copies. The
tokens of an expert are split over its copies as the plan likes; the layer lasts as long as its fullest device.

*Groups.* Join an expert and a device where one holds the other. A connected part with m devices and n experts has S*m slots
and is a connected graph, so ``n <= (S-1)*m + 1``; its load is at most ``m*T`` when no device has more than T. The room left,
``(S-1)*m + 1 - n`` summed over parts, is the number of parts minus ``D - R``; while there is room, two parts can be counted
as one. So every map is a partition of the experts into ``max(1, D - R)`` groups, each with ``n = (S-1)*m + 1`` (with
``D - R <= 1``: one group, the mean). Conversely each such group can be filled evenly (``search.experts``), so the optimum is
``min over partitions of max over groups of load/m`` and the bounds below speak of groups only.

*Refutation of T*, for ``D - R >= 2``. Let ``L(n)`` be the load of the n lightest experts, each counted at most ``T/(S-1)``:
n experts weigh at least that much, L is convex, and ``m*T - L((S-1)*m - i)`` does not fall with m. For an expert j let
``f_j`` be the number of m >= 1 with ``w_j > m*T - L((S-1)*m - 1)``. A group with m devices and experts H of ``f_j >= 1``
has ``m - 1 >= sum of f_j over H =: p``: otherwise, L being superadditive, H weighs more than ``p*T - L((S-1)*p - |H|)
>= m*T - L((S-1)*m + 1 - |H|)``, while its other ``(S-1)*m + 1 - |H|`` experts weigh the rest. Since the groups' ``m - 1`` add
up to R, T is refuted

1. if the sum of all ``f_j`` exceeds R, and
2. if for some h no M is possible: the h heaviest lie in g <= h groups; take M devices of these groups, without the ``f_j``
   devices that each further expert of ``f_j >= 1`` in them pays for itself. Then ``1 + (f of the h) <= M <= h + R - (f of the
   others)``, the groups hold at least ``max(E - S*(D-M), (S-1)*M + 1)`` experts in all, and the h with the lightest others
   must weigh at most ``M*T``.

With S = 1 the first is exact (``sum of ceil(w/T) <= D``); with R = 0 the second holds "the heaviest with the S-1 lightest".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.errors import InputError

Array = NDArray[np.float64]
Map = NDArray[np.int64]

MAX_LAYERS = 1024
MAX_EXPERTS = 4096
MAX_DEVICES = 65_536
MAX_PARTS = 16_777_216
"""Physical slots over all layers of one map."""
MAX_LOAD = 1e18

SLACK = 1e-12
"""Of a layer's load: sums must differ by more before they refute anything."""
STEPS = 26
HEADS = 256
"""Numbers of heaviest experts looked at together."""
SPLIT_ERROR = 1e-9


def expert_loads(loads: ArrayLike, devices: int, slots: int) -> Array:
    """Loads [L, E] as floats, after checking that D devices of S slots can hold E different experts."""
    w = np.asarray(loads, dtype=float)
    if w.ndim != 2 or not w.size or w.shape[0] > MAX_LAYERS or w.shape[1] > MAX_EXPERTS:
        raise InputError(
            f"loads of experts have the shape {w.shape}", mend=f"give 1..{MAX_LAYERS} layers of 1..{MAX_EXPERTS} experts"
        )
    if not (np.isfinite(w).all() and w.min() >= 0.0 and w.max() <= MAX_LOAD):
        raise InputError("a load of an expert is negative, not finite or too large", mend=f"give loads from 0 to {MAX_LOAD:g}")
    experts = w.shape[1]
    if not 1 <= devices <= MAX_DEVICES or slots < 1 or devices * slots * w.shape[0] > MAX_PARTS:
        raise InputError(f"{devices} devices of {slots} slots in {w.shape[0]} layers is out of range")
    if devices * slots < experts:
        raise InputError(
            f"{devices} devices of {slots} slots hold fewer than {experts} experts",
            mend=f"give at least {-(-experts // devices)} slots",
        )
    if slots > experts:
        raise InputError(
            f"{slots} slots for {experts} experts would hold an expert twice on a device", mend=f"give at most {experts} slots"
        )
    return w


def loads_of_map(physical_to_logical: ArrayLike, loads: ArrayLike, split: ArrayLike, devices: int) -> Array:
    """Load of every device [L, D]: slot i lies on device ``i // S`` and serves ``split[i]`` of its expert's tokens."""
    held = np.asarray(physical_to_logical)
    served = np.take_along_axis(np.asarray(loads, dtype=float), held, axis=1) * np.asarray(split, dtype=float)
    return np.asarray(served.reshape(len(held), devices, -1).sum(axis=2))


def check_map(physical_to_logical: ArrayLike, split: ArrayLike, experts: int, devices: int, slots: int) -> list[str]:
    """What is wrong with a map of slots [L, D*S] and its split, one line each; nothing for a valid one.

    Valid: D*S slots in each layer, every expert present, none twice on a device, splits from 0 to 1 that add up to one.
    """
    try:
        held, share = np.asarray(physical_to_logical), np.asarray(split, dtype=float)
    except (TypeError, ValueError):
        return ["the map or its split is ragged"]
    if held.ndim != 2 or held.shape[1] != devices * slots or share.shape != held.shape:
        return [f"the map has the shape {held.shape} and its split {share.shape}, not layers x {devices * slots} slots"]
    if not np.issubdtype(held.dtype, np.integer) or held.size and (held.min() < 0 or held.max() >= experts):
        return [f"a slot does not name an expert from 0 to {experts - 1}"]
    if not (np.isfinite(share).all() and (share >= 0.0).all() and (share <= 1.0 + SPLIT_ERROR).all()):
        return ["a split is not a share from 0 to 1"]
    layers = np.arange(len(held))[:, None]
    copies, total = np.zeros((len(held), experts), dtype=int), np.zeros((len(held), experts))
    np.add.at(copies, (layers, held), 1)
    np.add.at(total, (layers, held), share)
    lying = np.sort(held.reshape(len(held), devices, slots), axis=2)
    twice = (lying[:, :, 1:] == lying[:, :, :-1]).any(axis=2)
    faults = [f"layer {layer}: expert {expert} has no slot" for layer, expert in np.argwhere(copies == 0)[:8]]
    faults += [f"layer {layer}: device {device} holds an expert twice" for layer, device in np.argwhere(twice)[:8]]
    wrong = (copies > 0) & (np.abs(total - 1.0) > SPLIT_ERROR)
    return faults + [
        f"layer {layer}: the splits of expert {expert} add up to {total[layer, expert]:.9g}"
        for layer, expert in np.argwhere(wrong)[:8]
    ]


def lower_bound(loads: ArrayLike, devices: int, slots: int) -> Array:
    """A load [L] that the fullest device reaches under every choice of copies, devices and token splits.

    The mean where it is not refuted, else the largest T refuted by bisection. Experts dealt in turn, in order of their loads,
    keep every device within the mean and the heaviest expert, so the bisection ends there.
    """
    w = expert_loads(loads, devices, slots)
    mean = w.sum(axis=1) / devices
    if devices * slots - w.shape[1] >= devices - 1:
        return np.asarray(mean)
    return np.array([_refuted_up_to(np.sort(row), devices, slots, low) for row, low in zip(w, mean, strict=True)])


def _refuted_up_to(light: Array, devices: int, slots: int, mean: float) -> float:
    if not refuted(light, devices, slots, mean):
        return float(mean)
    low, high = float(mean), float(mean + light[-1])
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if refuted(light, devices, slots, middle):
            low = middle
        else:
            high = middle
    return low


def refuted(light: Array, devices: int, slots: int, target: float) -> bool:
    """Whether no map keeps every device at ``target`` or below, for one layer's loads in rising order (at least two groups)."""
    experts = len(light)
    spare = devices * slots - experts
    slack = SLACK * float(light.sum())
    counted = np.minimum(light, target / (slots - 1)) if slots > 1 else np.zeros(experts)
    lightest = np.concatenate([[0.0], np.cumsum(counted)])
    many = np.arange(1, devices + 1)
    room = many * target - lightest[np.clip((slots - 1) * many - 1, 0, experts)] + slack
    further = np.searchsorted(room, light, side="left")[::-1]
    if further.sum() > spare:
        return True
    if slots == 1:
        return False
    held = np.maximum(experts - slots * (devices - many), (slots - 1) * many + 1)
    heavy, fewest = np.cumsum(light[::-1]), np.cumsum(further)
    for first in range(1, devices - spare, HEADS):
        heads = np.arange(first, min(first + HEADS, devices - spare))[:, None]
        paid = fewest[heads - 1]
        weight = heavy[heads - 1] + lightest[np.clip(held - heads, 0, experts)]
        possible = (many > paid) & (many <= heads + spare - (fewest[-1] - paid)) & (weight <= many * target + slack)
        if not possible.any(axis=1).all():
            return True
    return False
