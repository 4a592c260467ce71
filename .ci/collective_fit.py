"""What the measured transfers of hardware_profiles/measurements/transfers.csv say: a line through them, and planner beside them.

``collective_fit.py`` prints each point with what planner computes for it, ``collective_fit.py figures`` the figures that the
points give for each network and link, ``collective_fit.py classes`` what stands where nothing is measured.
tests/test_efficiency_data.py holds the profiles to the figures.

An operation takes ``startup + bytes / (bandwidth * efficiency)``; both are found by least squares over relative errors, all
points of a network and kind alike. An all-reduce has two such lines with one efficiency, of which the lesser counts; a
point belongs to the line that is less there, found by turns. The ends of an interval are the 10th and 90th percentile of
what single points give: an efficiency where bytes are most of the time, a startup where they are the least of it.
"""

import csv
import sys
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from planner.hardware import Domain, System, load_hardware
from planner.hardware.defaults import class_defaults
from planner.hardware.loader import builtin_folder
from planner.performance.collectives import all_reduce, links_share
from planner.performance.experts import distinct_targets
from planner.performance.rates import level_of

TABLE = builtin_folder() / "measurements" / "transfers.csv"
MOSTLY = 0.7


class Point(NamedTuple):
    """A row of the table in SI units: ``seconds`` for ``wire`` bytes of a device, or ``rate`` bytes/s of a large transfer.

    ``one_step``: bytes of an all-reduce in one step. What a device of a mesh sends counts as if it had all its links.
    """

    row: dict[str, str]
    seconds: float
    rate: float
    wire: float
    one_step: float


def points() -> list[Point]:
    """Every row of the table; one whose convention is not stated has neither seconds nor rate."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [point_of(row) for row in rows]


def point_of(row: dict[str, str]) -> Point:
    """The row by its convention (see README.md beside the table)."""
    size, tokens, top_k, devices = (float(row[key] or 0) for key in ("bytes", "tokens", "top_k", "devices"))
    groups = float(row["groups"] or 0)
    away = 1.0 - 1.0 / groups if groups else 1.0
    distinct = float(distinct_targets(np.array([max(groups, 2.0)]), top_k, np.inf)[0])
    wire = {
        "payload": 2.0 * (devices - 1.0) / devices * size,
        "buffer": size * away,
        "per-expert": tokens * top_k * size * away,
        "per-rank": tokens * distinct * size * away,
    }.get(row["convention"], 0.0)
    share = 1.0
    place = place_of(row)
    if isinstance(place, Domain) and row["kind"] != "p2p":
        share = float(np.asarray(links_share(np.array([devices]), level_of(place)))[0])
    value = float(row["value"])
    if row["convention"] == "unstated":
        return Point(row, 0.0, 0.0, 0.0, 0.0)
    if row["unit"] == "us":
        return Point(row, value * 1e-6, 0.0, wire / share, (devices - 1.0) * size / share)
    return Point(row, 0.0, value * 1e9 * (away if row["convention"] == "logical" else 1.0) / share, 0.0, 0.0)


_systems: dict[str, System] = {}


def place_of(row: dict[str, str]) -> object:
    """The domain, link or tier that the row was measured on."""
    system = _systems.setdefault(row["system"], load_hardware(row["system"]).system)
    parts = (*system.links, *system.tiers) if row["kind"] in ("read", "write", "both") else system.domains
    return next(part for part in parts if part.id == row["place"])


class Derived(NamedTuple):
    """A figure as the points give it: seconds, bytes/s, or a fraction of the nominal rate."""

    value: float
    low: float
    high: float


def derive(chosen: list[Point]) -> dict[str, Derived]:
    """The figures of one place and kind from its fitted points, by key of the profile."""
    kind, place = chosen[0].row["kind"], place_of(chosen[0].row)
    if kind == "both":
        return {"both_ways": spread([point.rate for point in chosen], 3)}
    bandwidth = (place.bandwidth if hasattr(place, "bandwidth") else place.read).value
    if kind in ("p2p", "read", "write"):
        key = {"p2p": "p2p_efficiency", "read": "efficiency", "write": "reverse_efficiency"}[kind]
        return {key: spread([point.rate / bandwidth for point in chosen], 2)}
    timed = [point for point in chosen if point.seconds]
    small = [point.seconds for point in timed if point.row["kind"] == "allreduce"]
    in_one = np.array([point.one_step > 0 and point.one_step < 2e6 for point in timed], dtype=bool) & bool(small)
    for _ in range(20):
        startup, first, slowness = solve(chosen, timed, in_one)
        now = np.array([first + p.one_step * slowness < startup + p.wire * slowness for p in timed], dtype=bool) & bool(small)
        if (now == in_one).all():
            break
        in_one = now
    found: dict[str, Derived] = {}
    shares, starts, firsts = [], [], []
    for point in chosen:
        if point.rate:
            shares.append(point.rate / bandwidth)
            continue
        lines = [(startup, point.wire * slowness, starts)]
        if in_one.any():
            lines.append((first, point.one_step * slowness, firsts))
        start, moving, single = min(lines, key=lambda line: line[0] + line[1])
        if moving >= MOSTLY * (start + moving):
            shares.append((start + moving) / point.seconds / slowness / bandwidth)
        elif start >= MOSTLY * (start + moving):
            single.append(point.seconds / (start + moving) * start)
    found[f"{kind}_efficiency"] = interval(1.0 / slowness / bandwidth, shares, 2)
    if timed:
        found[f"{kind}_startup"] = interval(startup, starts, -2)
    if in_one.any():
        found["oneshot_startup"] = interval(first, firsts, -2)
    return found


def solve(chosen: list[Point], timed: list[Point], in_one: np.ndarray) -> tuple[float, float, float]:
    """Startup, startup of one step, and seconds a byte: least squares of relative errors, none below zero."""
    rows = [[0.0, 0.0, point.rate] for point in chosen if point.rate]
    for point, single in zip(timed, in_one, strict=True):
        moved = point.one_step if single else point.wire
        rows.append([float(not single) / point.seconds, float(single) / point.seconds, moved / point.seconds])
    table = np.array(rows) * [1e-6, 1e-6, 1e-12]
    free = [column for column in range(3) if table[:, column].any()]
    while True:
        answer = np.zeros(3)
        answer[free] = np.linalg.lstsq(table[:, free], np.ones(len(table)), rcond=None)[0]
        if (answer >= 0.0).all():
            return answer[0] * 1e-6, answer[1] * 1e-6, answer[2] * 1e-12
        free = [column for column in free if answer[column] > 0.0]


def spread(values: list[float], digits: int) -> Derived:
    """The median of values that need no fit, with their ends."""
    return interval(float(np.median(values)), values, digits)


def interval(value: float, singles: list[float], digits: int) -> Derived:
    """A value with the 10th and 90th percentile of what single points give; half and double where there are none.

    A startup is that of one release on one machine: 0.8 and 1.25 times it is the least.
    """
    low, high = np.quantile(singles, [0.1, 0.9]) if singles else (0.5 * value, 2.0 * value)
    if digits < 0:
        low, high = min(low, 0.8 * value), max(high, 1.25 * value)
    low, high = min(float(low), value), max(float(high), value)
    return Derived(*(rounded(number, digits) for number in (value, low, high)))


def rounded(value: float, digits: int) -> float:
    """A fraction to two or, below 0.2, three decimals; a time or rate (``digits`` below zero or three) to as many digits."""
    if digits == 2:
        return round(value, 3 if value < 0.2 else 2)
    return float(f"{value:.{abs(digits)}g}")


def figures() -> dict[tuple[str, str, str], tuple[object, Derived]]:
    """By ``(system, place, key)`` every figure that the table gives, with the domain, link or tier that should say so."""
    grouped: dict[tuple[str, str, str], list[Point]] = defaultdict(list)
    for point in points():
        if point.row["fitted"] == "yes":
            grouped[point.row["system"], point.row["place"], point.row["kind"]].append(point)
    return {
        (system, place, key): (place_of(chosen[0].row), figure)
        for (system, place, _), chosen in grouped.items()
        for key, figure in derive(chosen).items()
    }


def predicted(point: Point) -> float | None:
    """What planner computes for the point, in its unit, with the figures of the profile as they stand."""
    row, place = point.row, place_of(point.row)
    kind, size = row["kind"], float(row["bytes"] or 0)
    if not (point.seconds or point.rate):
        return None
    if not isinstance(place, Domain):
        nominal = (place.bandwidth if hasattr(place, "bandwidth") else place.read).value
        if kind == "both":
            return place.both_ways.value / 1e9
        other = getattr(place, "reverse_efficiency", None) if kind == "write" else None
        return nominal * (other or place.efficiency).value / 1e9
    level = level_of(place)
    if kind == "p2p":
        return level.p2p / 1e9
    devices = np.array([float(row["devices"])])
    rate = float((level.allreduce if kind == "allreduce" else level.alltoall) * np.asarray(links_share(devices, level))[0])
    if point.rate:
        away = 1.0 - 1.0 / float(row["groups"]) if row["convention"] == "logical" else 1.0
        return rate / away / 1e9
    if kind == "allreduce":
        return float(all_reduce(devices, np.array([size]), (level,))[0]) * 1e6
    startup = level.latency if level.alltoall_startup is None else level.alltoall_startup
    return (startup + point.wire / (level.alltoall)) * 1e6


def print_points() -> None:
    """Print the table, and first how far planner is from the fitted points of each network."""
    every = [(point, predicted(point)) for point in points()]
    print("time of planner over time measured, fitted points: median (10th to 90th percentile), number of points")
    grouped: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for point, value in every:
        if point.row["fitted"] == "yes" and value is not None:
            ratio = value / float(point.row["value"])
            grouped[point.row["system"], point.row["place"], point.row["kind"]].append(ratio if point.seconds else 1.0 / ratio)
    for (system, place, kind), ratios in grouped.items():
        low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9])
        print(f"  {system:22} {place:10} {kind:10} {middle:5.2f} ({low:.2f} to {high:.2f}) {len(ratios):4}")
    print()
    print(f"{'system':21} {'place':10} {'operation':48} {'n':>3} {'tokens':>6} {'bytes':>10} {'counted':10} "
          f"{'measured':>9} {'planner':>9} unit fit")  # fmt: skip
    for point, value in every:
        row = point.row
        shown = "-" if value is None else f"{value:.4g}"
        head = f"{row['system']:21} {row['place']:10} {row['operation'][:48]:48} {row['devices']:>3} {row['tokens']:>6}"
        measured = float(row["value"])
        print(f"{head} {row['bytes']:>10} {row['convention']:10} {measured:9.4g} {shown:>9} {row['unit']:4} {row['fitted']}")


def print_figures() -> None:
    """Print every derived figure and whether the profile says the same."""
    for (system, place, key), (part, figure) in figures().items():
        same = (said := getattr(part, key)) is not None and abs(said.value / figure.value - 1.0) < 1e-9
        print(f"{system:22} {place:10} {key:22} {figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g}){'' if same else ' *'}")


def print_classes() -> None:
    """Print every class default."""
    for sort in ("tier", "link", "domain"):
        for name, rules in class_defaults()[sort].items():
            for key, figure in rules.items():
                if isinstance(figure, dict):
                    span = f"({figure['low']} to {figure['high']})"
                    print(f"{sort:6} {name:10} {key:22} {figure['value']!s:7} {span:20} {figure['source']}")
    for name, rules in class_defaults()["gemm"].items():
        span = f"(x {rules['low_factor']} to {rules['high_factor']})"
        print(f"gemm   {name:10} {'plateau':22} {rules['plateau']!s:7} {span:20} {rules['source']}")


if __name__ == "__main__":
    {"figures": print_figures, "classes": print_classes}.get(" ".join(sys.argv[1:]), print_points)()
