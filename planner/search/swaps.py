"""Local search for shares of a layer's pieces among equal devices: swaps and moves between two devices, many pairs at once."""

from __future__ import annotations

import numpy as np

from planner.plans.barrier_bound import Array, BarrierProblem, Index, Mask, device_loads

WINDOW = 8
"""Pieces of a device that one round of swaps looks at."""

OTHERS = 24
"""Lightest devices against which the heaviest one is tried."""

ROUNDS = 240
PATIENCE = 16
"""Rounds of swaps, and rounds without any change after which a layer stops."""


def members(device: Index, devices: int) -> tuple[Index, Index]:
    """``(L, D, K)`` pieces of each device in order, then the index ``E`` of none; ``(L, D)`` how many. K has room."""
    layers, pieces = device.shape
    each = np.arange(layers)
    cell = (each[:, None] * devices + device).ravel()
    size = np.bincount(cell, minlength=layers * devices)
    order = np.argsort(cell, kind="stable")
    begin = np.concatenate([[0], np.cumsum(size)[:-1]])
    position = np.arange(layers * pieces) - begin[cell[order]]
    member = np.full((layers * devices, int(size.max()) + 2), pieces, dtype=np.intp)
    member[cell[order], position] = order % pieces
    return member.reshape(layers, devices, -1), size.reshape(layers, devices)


def swapped(problem: BarrierProblem, device: Index, away: Mask, goal: Array) -> tuple[Index, Mask]:
    """Better shares of the same counts, by swaps and moves between two devices of a layer that lower the heavier of the two.

    Rounds alternate between all pairs of heavy and light devices at once and the heaviest device against every other, and
    between pieces that keep their memory and pieces that take over each other's. A layer stops at its ``goal`` ``(L,)`` s.
    """
    rows, layers, pieces = problem.resident.shape
    devices = problem.devices
    if devices < 2:
        return device, away
    pad = ((0, 0), (0, 0), (0, 1))
    both = np.stack([np.pad(problem.resident, pad), np.pad(problem.away, pad)], axis=1)
    times = both.reshape(rows, -1)  # (R, 2 L (E+1)), flat for quick picking
    status = np.pad(away, ((0, 0), (0, 1))).astype(np.intp)
    member, size = members(device, devices)
    load = device_loads(problem, device, away)
    idle = np.zeros(layers, dtype=np.intp)
    active = np.flatnonzero(load.max(axis=(0, 2)) > goal)
    half = devices // 2
    plane = layers * (pieces + 1)
    for turn in range(ROUNDS):
        if not len(active):
            break
        exchange, versus_all, cycle = turn % 2 == 1, turn % 4 >= 2, turn // 4
        level = load[:, active].max(axis=0)
        rank = np.argsort(-level, axis=1, kind="stable")
        if versus_all:
            second = rank[:, max(1, devices - OTHERS) :]
            first = np.repeat(rank[:, :1], second.shape[1], axis=1)
        else:
            first = rank[:, :half]
            second = np.roll(rank[:, devices - half :][:, ::-1], cycle % half, axis=1)
        wanted = np.take_along_axis(level, first, axis=1) > goal[active, None]
        where = np.nonzero(wanted)
        layer, first, second = active[where[0]], first[where], second[where]
        columns = cycle * (WINDOW // 2) + np.arange(WINDOW)
        left = columns % (size[layer, first] + 1)[:, None]
        right = (columns if versus_all else columns[::-1]) % (size[layer, second] + 1)[:, None]
        ours = member[layer[:, None], first[:, None], left]
        theirs = member[layer[:, None], second[:, None], right]
        flat_ours, flat_theirs = layer[:, None] * (pieces + 1) + ours, layer[:, None] * (pieces + 1) + theirs
        our_status, their_status = status.ravel()[flat_ours], status.ravel()[flat_theirs]
        score = np.zeros((len(layer), WINDOW, WINDOW))
        for row in range(rows):
            our_time = times[row][flat_ours + our_status * plane]
            their_time = times[row][flat_theirs + their_status * plane]
            our_load, their_load = load[row, layer, first][:, None] - our_time, load[row, layer, second][:, None] - their_time
            if exchange:
                comes = np.where(
                    our_status[:, :, None], times[row][flat_theirs + plane][:, None, :], times[row][flat_theirs][:, None, :]
                )
                goes = np.where(
                    their_status[:, None, :], times[row][flat_ours + plane][:, :, None], times[row][flat_ours][:, :, None]
                )
                np.maximum(score, our_load[:, :, None] + comes, out=score)
                np.maximum(score, their_load[:, None, :] + goes, out=score)
            else:
                np.maximum(score, our_load[:, :, None] + their_time[:, None, :], out=score)
                np.maximum(score, their_load[:, None, :] + our_time[:, :, None], out=score)
        if exchange:
            barred = (ours == pieces)[:, :, None] | (theirs == pieces)[:, None, :]
            score[barred | (our_status[:, :, None] == their_status[:, None, :])] = np.inf
        flat = score.reshape(len(layer), -1)
        best = np.argmin(flat, axis=1)
        value = flat[np.arange(len(layer)), best]
        before = load[:, layer, first].max(axis=0)
        if versus_all:
            value = np.where(value < before * (1.0 - 1e-9), value, np.inf)
            order = np.lexsort((value, layer))
            leading = order[np.concatenate([[True], layer[order][1:] != layer[order][:-1]])]
            chosen = leading[np.isfinite(value[leading])]
        else:
            chosen = np.flatnonzero(value < before * (1.0 - 1e-9))
        row, column = np.divmod(best[chosen], WINDOW)
        at_layer, a, b = layer[chosen], first[chosen], second[chosen]
        i, j = left[chosen, row], right[chosen, column]
        mine, other = ours[chosen, row], theirs[chosen, column]
        here, there = status[at_layer, mine], status[at_layer, other]
        leaving = times[:, at_layer * (pieces + 1) + mine + here * plane]
        coming = times[:, at_layer * (pieces + 1) + other + there * plane]
        mine_after, other_after = (there, here) if exchange else (here, there)
        load[:, at_layer, a] += times[:, at_layer * (pieces + 1) + other + other_after * plane] - leaving
        load[:, at_layer, b] += times[:, at_layer * (pieces + 1) + mine + mine_after * plane] - coming
        if exchange:
            status[at_layer, mine], status[at_layer, other] = status[at_layer, other], status[at_layer, mine]
        member[at_layer, a, i], member[at_layer, b, j] = other, mine
        if not exchange:
            _closed(member, size, pieces, at_layer, a, i, mine, other)
            _closed(member, size, pieces, at_layer, b, j, other, mine)
            if size.max() + 1 >= member.shape[2]:
                member = np.pad(member, ((0, 0), (0, 0), (0, 4)), constant_values=pieces)
        changed = np.zeros(layers, dtype=bool)
        changed[at_layer] = True
        idle = np.where(changed, 0, idle + 1)
        active = active[(load[:, active].max(axis=(0, 2)) > goal[active]) & (idle[active] < PATIENCE)]
    filled = member < pieces
    found = np.nonzero(filled)
    device = np.empty((layers, pieces), dtype=np.intp)
    device[found[0], member[filled]] = found[1]
    return device, status[:, :pieces].astype(bool)


def _closed(member: Index, size: Index, pieces: int, layer: Index, device: Index, at: Index, gone: Index, came: Index) -> None:
    """Keep the pieces of a device together where one came for none, or none for one."""
    fewer = (gone < pieces) & (came == pieces)
    more = (gone == pieces) & (came < pieces)
    size[layer[more], device[more]] += 1
    layer, device, at = layer[fewer], device[fewer], at[fewer]
    last = size[layer, device] - 1
    member[layer, device, at] = member[layer, device, last]
    member[layer, device, last] = pieces
    size[layer, device] = last
