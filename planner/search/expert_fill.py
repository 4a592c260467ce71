"""Devices that share a group of experts, filled evenly: every group that fits its slots can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def fill(heavy: Array, group: Index, width: Index, slots: int) -> tuple[Index, Array]:
    """Slots [L, D*S] of experts (place in ``heavy``, -1 where a slot is spare) and the load each serves, even in every group.

    A group's heaviest expert is carried. Each device takes the ``S-1-t`` lightest and the t heaviest of the others, with the
    smallest t for which these and the carried expert fill it: for t = 0 a part of the carried expert, else all of it and
    the lightest of the t only in part, which is carried on. Such a t exists because the others number S-1 for each device
    left: the S-1 lightest weigh at most a device's load, the S-1 heaviest and the carried one at least that.
    """
    layers, experts = heavy.shape
    count, devices = width.shape[1], int(width[0].sum())
    size = (slots - 1) * width + 1
    chains, most = layers * count, int(size.max())
    names, weight = np.full((chains, most), -1, dtype=np.int64), np.zeros((chains, most))
    rising = np.argsort(group[:, ::-1], axis=1, kind="stable")
    item = experts - 1 - rising
    chain = np.take_along_axis(group, item, axis=1) + count * np.arange(layers)[:, None]
    held = np.bincount(chain.ravel(), minlength=chains)
    place = np.arange(layers * experts).reshape(layers, experts) - (np.cumsum(held) - held)[chain] + (size.ravel() - held)[chain]
    names[chain, place] = item
    weight[chain, place] = np.take_along_axis(heavy, item, axis=1)
    sums = np.concatenate([np.zeros((chains, 1)), np.cumsum(weight, axis=1)], axis=1)
    start = (np.cumsum(width, axis=1) - width + devices * np.arange(layers)[:, None]).ravel()

    order = np.argsort(-width.ravel(), kind="stable")
    names, weight, sums, start, wide = names[order], weight[order], sums[order], start[order], width.ravel()[order]
    low, high = np.zeros(chains, dtype=np.int64), (slots - 1) * wide
    carried, left = names[np.arange(chains), high], weight[np.arange(chains), high]
    target = sums[np.arange(chains), high + 1] / wide
    slot_of, amount = np.empty((layers * devices, slots), dtype=np.int64), np.empty((layers * devices, slots))
    heaviest, position = np.arange(slots), np.arange(slots - 1)
    for step in range(int(wide[0])):
        running = int(np.searchsorted(-wide, -step, side="left"))
        row, lo, hi = np.arange(running), low[:running], high[:running]
        rest, full = left[:running], target[:running]
        lightest = sums[row[:, None], lo[:, None] + (slots - 1 - heaviest)] - sums[row, lo][:, None]
        others = lightest + sums[row, hi][:, None] - sums[row[:, None], hi[:, None] - heaviest]
        enough = others + rest[:, None] >= full[:, None]
        enough[:, -1] = True
        last = wide[:running] == step + 1
        t = np.where(last, 0, enough.argmax(axis=1))
        index = np.where(position < (slots - 1 - t)[:, None], lo[:, None] + position, hi[:, None] - (slots - 1) + position)
        taken, got = names[row[:, None], index], weight[row[:, None], index]
        stays = t == 0
        part = np.where(last, rest, np.clip(full - others[:, 0], 0.0, rest))
        device = start[:running] + step
        slot_of[device, -1], amount[device, -1] = carried[:running], np.where(stays, part, rest)
        cut = np.flatnonzero(~stays)
        edge = slots - 1 - t[cut]
        whole = got[cut, edge]
        piece = np.clip(full[cut] - rest[cut] - (others[cut, t[cut]] - whole), 0.0, whole)
        left[:running] = rest - part
        left[cut], carried[cut] = whole - piece, taken[cut, edge]
        got[cut, edge] = piece
        slot_of[device, :-1], amount[device, :-1] = taken, got
        low[:running] += slots - 1 - t
        high[:running] -= t
    return slot_of.reshape(layers, -1), amount.reshape(layers, -1)


def fill_spare(held: Index, order: Index) -> Index:
    """Slots [L, D*S] with an idle copy in every spare one: of the most loaded experts in turn, none twice on a device."""
    layers, _, slots = held.shape
    for column in range(slots):
        layer, device = np.nonzero(held[:, :, column] < 0)
        if not len(layer):
            continue
        turn = column * held.shape[1] + device
        offered = order[layer[:, None], (turn[:, None] + np.arange(slots)) % order.shape[1]]
        free = ~(offered[:, :, None] == held[layer, device][:, None, :]).any(axis=2)
        held[layer, device, column] = offered[np.arange(len(layer)), free.argmax(axis=1)]
    return held.reshape(layers, -1)


def shares_of(physical: Index, served: Array, experts: int) -> Array:
    """Loads served by the slots as shares of their experts' tokens; an expert without tokens is split evenly."""
    rows = np.arange(len(physical))[:, None]
    total, copies = np.zeros((len(physical), experts)), np.zeros((len(physical), experts))
    np.add.at(total, (rows, physical), served)
    np.add.at(copies, (rows, physical), 1.0)
    whole, number = np.take_along_axis(total, physical, axis=1), np.take_along_axis(copies, physical, axis=1)
    return np.asarray(np.where(whole > 0.0, served / np.where(whole > 0.0, whole, 1.0), 1.0 / number))
