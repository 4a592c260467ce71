"""A hardware profile as a tree: device and its memory, memories below it with their paths, links, domains, money and power."""

from __future__ import annotations

import math
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel

from planner.cli.hardware_notes import derivation
from planner.cli.part_view import numbered
from planner.economics.owned import HOURS_PER_YEAR, capital_recovery_factor
from planner.hardware.balance import exchanges, knees, prefill_per_decode
from planner.hardware.given import estimated_capex
from planner.hardware.schema import DIMENSIONS
from planner.prices import load_prices
from planner.quantities import Dimension, Figure

if TYPE_CHECKING:
    from planner.hardware import Curve, DeviceProfile, Domain, Link, System, Tier

_LEAST_WIDTH = 40
_HARD_SPACE = "\xa0"


@dataclass
class Branch:
    """A line of the tree: its text, what stands at the right edge (grade and source), and what hangs below it."""

    text: str
    mark: str = ""
    below: list[Branch] = field(default_factory=list)

    def add(self, text: str, mark: str = "") -> Branch:
        """A new line below this one."""
        self.below.append(Branch(text, mark))
        return self.below[-1]


class Evidence:
    """Grades of what was printed, and the numbered sources."""

    def __init__(self) -> None:
        self.sources: dict[tuple[str, str], int] = {}
        self.grades: Counter[str] = Counter()
        self.unknown = 0

    def mark(self, figure: Figure | Curve) -> str:
        """``B [3]``: grade and number of the source; ``? [4]`` where there is no evidence."""
        number = self.sources.setdefault((figure.source, str(figure.as_of)), len(self.sources) + 1)
        if isinstance(figure, Figure) and not figure.known:
            self.unknown += 1
            return f"? [{number}]"
        self.grades[figure.grade] += 1
        return f"{figure.grade} [{number}]"

    def summary(self) -> str:
        """``lowest grade of a figure: D (A 12, C 4, D 2; 1 unknown)``."""
        counts = ", ".join(f"{grade} {count}" for grade, count in sorted(self.grades.items()))
        unknown = f"; {self.unknown} unknown" if self.unknown else ""
        return f"lowest grade of a figure: {max(self.grades, default='-')} ({counts}{unknown})"


_SCALES: dict[Dimension, tuple[float, str]] = {
    "bytes": (1e9, " GB"),
    "bytes_per_s": (1e9, " GB/s"),
    "flop_per_s": (1e12, " TFLOP/s"),
    "s": (1e-6, " us"),
    "w": (1.0, " W"),
    "usd": (1.0, " USD"),
    "per_s": (1e6, " M/s"),
    "fraction": (0.01, "%"),
}
_WORDS = {
    "efficiency": "share reached",
    "startup": "start-up",
    "iops": "operations",
    "allreduce_efficiency": "all-reduce reaches",
    "alltoall_efficiency": "all-to-all reaches",
    "p2p_efficiency": "one peer reaches",
    "reverse_efficiency": "share reached the other way",
    "both_ways": "each way while both are busy",
    "allreduce_startup": "all-reduce start-up",
    "alltoall_startup": "all-to-all start-up",
    "p2p_startup": "start-up to one peer",
    "oneshot_startup": "one-step all-reduce start-up",
}


def amount(value: float, dimension: Dimension) -> str:
    """A number in the unit that people compare by: GB, GB/s, TFLOP/s, microseconds, watts, dollars, per cent."""
    scale, unit = _SCALES.get(dimension, (1.0, ""))
    scaled = value / scale
    digits = f"{scaled:,.0f}" if abs(scaled) >= 1000 else f"{scaled:.4g}"
    return digits + unit


def stated(figure: Figure, dimension: Dimension) -> str:
    """The value with its interval; what is not known is called so."""
    low, value, high = (amount(x, dimension) for x in (figure.lowest, figure.value, figure.highest))
    span = f" ({low.split(' ')[0]} to {high.split(' ')[0]})" if low != high else ""
    if figure.known:
        return value + span
    return f"unknown; default {value}{span}" if figure.has_default else "unknown"


def _figures(branch: Branch, part: BaseModel, evidence: Evidence, but: tuple[str, ...] = ()) -> None:
    """A line for each figure of a part, in the schema's order."""
    for key, value in part:
        if isinstance(value, Figure) and key not in but:
            name = _WORDS.get(key, key.replace("_", " "))
            branch.add(f"{name} {stated(value, DIMENSIONS[key])}", evidence.mark(value))


def tree_of(profile: System | DeviceProfile, evidence: Evidence) -> Branch:
    """The tree of a system or of a device by itself."""
    from planner.hardware import DeviceProfile

    head = f"{profile.name} ({profile.id}): {profile.kind}, {profile.origin}, {profile.status}, as of {profile.as_of}"
    root = Branch(head)
    if isinstance(profile, DeviceProfile):
        _device(root, profile, profile.memory, evidence)
        return root
    system = profile
    sizes = [f"{system.devices} devices", f"{system.devices_per_node} a node", f"sold by {system.purchasable_devices}"]
    if system.devices_per_package > 1:
        sizes.append(f"{system.devices_per_package} a package")
    root.add(", ".join(sizes))
    own = [tier for tier in system.tiers if tier.role == "device"]
    device = root.add(f"device {system.device.id}: {system.device.name}, {system.device.status}")
    _device(device, system.device, own, evidence)
    for tier in system.tiers:
        if tier.role != "device":
            _tier(root.add(_owned(tier)), tier, system, evidence)
    if system.links:
        links = root.add("links, one-way")
        for link in system.links:
            _link(links, link, evidence)
    if system.domains:
        inner = root.add("network domains, inner to outer; one-way rates of one device")
        for domain in system.domains:
            inner = _domain(inner, domain, evidence)
    groups = _groups(system)
    if groups:
        contention = root.add("contention groups: what serves one device together carries no more than its widest member")
        for name, members in groups.items():
            contention.add(f"{name}: {', '.join(members)}")
    _estimate(root.add(f"power of the system {stated(system.power, 'w')}", evidence.mark(system.power)), system.power)
    capex = f"price of the system {stated(system.capex, 'usd')}, {system.capex_basis} of {system.capex.as_of}"
    price = root.add(capex, evidence.mark(system.capex))
    _estimate(price, system.capex)
    _lines(price, system, evidence)
    if not system.capex.known and (system.power.known or system.power.has_default):
        taken = estimated_capex(system)
        price.add(f"a plan takes {stated(taken, 'usd')}: {derivation(taken)}")
    if system.rents:
        rents = root.add("rents, USD an hour")
        for rent in sorted(system.rents, key=lambda row: (row.basis, str(row.usd_per_hour.as_of), row.provider)):
            each = f"{stated(rent.usd_per_hour, 'usd_per_h')} a {rent.per}, {rent.provider}, {rent.usd_per_hour.as_of}"
            rents.add(f"{rent.basis}: {each}", evidence.mark(rent.usd_per_hour))
    _balance(root, system)
    return root


LIVES = (4.0, 5.0)
"""Years over which the capital cost of a device is shown."""


def _lines(branch: Branch, system: System, evidence: Evidence) -> None:
    """What the price consists of, and what its capital alone costs an hour of a device."""
    for line in system.capex_lines:
        share = line.capex.value / system.capex.value
        branch.add(f"{line.id}: {line.name}, {stated(line.capex, 'usd')}, {share:.2%}", evidence.mark(line.capex))
    if system.capex.known:
        rate = load_prices("owned").cost_of_capital.value
        each = system.capex.value / system.devices
        hours = [f"{each * capital_recovery_factor(rate, years) / HOURS_PER_YEAR:.4g} over {years:g}" for years in LIVES]
        branch.add(f"{each:,.0f} USD a device; its capital alone, at {rate:.0%} a year: USD an hour {', '.join(hours)} years")


def _balance(root: Branch, system: System) -> None:
    """What must feed the device for it to compute, at nominal rates."""
    found, between = knees(system), exchanges(system)
    if not found:
        return
    branch = root.add("balance at nominal rates, dense peak over one-way bytes/s")
    branch.add(
        "its memory, FLOP a byte: "
        + ", ".join(f"{knee.dtype} {knee.flop_per_byte:.4g} ({knee.tokens:.4g} tokens)" for knee in found)
    )
    branch.below[-1].add("in brackets: tokens that must share a read of weights for it to cost no time")
    for domain in dict.fromkeys(row.domain for row in between):
        rows = [row for row in between if row.domain == domain]
        texts = [f"{row.dtype} {row.flop_per_byte:,.0f} ({math.ceil(row.intermediate):,})" for row in rows]
        branch.add(f"{domain}, FLOP a byte: {', '.join(texts)}")
    if between:
        branch.below[-1].add("in brackets: least intermediate size of experts that hides their exchange, no copy saved")
    ratio = prefill_per_decode(system)
    if ratio is not None and ratio.possible:
        what = f"{ratio.low:.3g} to {ratio.high:.3g} prefill nodes a decode node"
        branch.add(
            f"caches read from storage through both pools, one storage port a node (DualPath): {what} without a bottleneck"
        )


def _estimate(branch: Branch, figure: Figure) -> None:
    """Below an estimated figure, how it came about."""
    if how := derivation(figure):
        branch.add(f"an estimate: {how}")


def _device(branch: Branch, device: Any, memory: Any, evidence: Evidence) -> None:
    compute = branch.add("dense peak and what large matrix products reach of it")
    for dtype, part in device.compute.items():
        text = stated(part.peak, "flop_per_s")
        mark = evidence.mark(part.peak)
        reached = f"{amount(part.gemm.points[-1][1], 'fraction')} reached {evidence.mark(part.gemm).replace(' ', _HARD_SPACE)}"
        compute.add(f"{dtype:<5} {text}, {reached}", mark)
    for tier in memory:
        own = branch.add(f"its memory {tier.id} ({tier.kind})")
        own.add(f"usable {stated(tier.usable, 'bytes')}", evidence.mark(tier.usable))
        own.below[-1].add(f"note: {tier.usable.note}")
        own.below[-1].add("the runtime's reserves come off it: planner show runtime generic")
        _figures(own, tier, evidence, but=("usable",))


def _owned(tier: Tier) -> str:
    sharers = f"{tier.devices_sharing} devices share it" if tier.devices_sharing > 1 else "one device uses it"
    return f"{tier.role} memory {tier.id} ({tier.kind}), owned by {tier.owner}; {sharers}"


def _tier(branch: Branch, tier: Tier, system: System, evidence: Evidence) -> None:
    share = f", {amount(tier.usable.value / tier.devices_sharing, 'bytes')} a device" if tier.usable.known else ""
    branch.add(f"usable {stated(tier.usable, 'bytes')} of one owner{share}", evidence.mark(tier.usable))
    if tier.usable.note:
        branch.below[-1].add(f"note: {tier.usable.note}")
    _figures(branch, tier, evidence, but=("usable",))
    rates = system.tier_rate(tier.id)
    known = {name: _known(system, name) for name, _ in rates}
    passes = Counter((tier.id, *tier.via))
    steps = [
        f"{name}{' (twice)' if passes[name] == 2 else ''} {amount(rate, 'bytes_per_s') if known[name] else 'unknown'}"
        for name, rate in rates
    ]
    path = branch.add("path to a device, rate left to each when all sharers stream: " + " > ".join(steps))
    if all(known.values()):
        name, rate = min(rates, key=lambda item: item[1])
        path.add(f"bottleneck {name}: {amount(rate, 'bytes_per_s')} a device")
    else:
        path.add("bottleneck unknown")


def _known(system: System, name: str) -> bool:
    """Whether the rate of a link or tier is known."""
    link = next((link for link in system.links if link.id == name), None)
    return link.bandwidth.known if link else system.tier(name).read.known


def _link(branch: Branch, link: Link, evidence: Evidence) -> None:
    sharers = f"{link.devices_sharing} devices share it" if link.devices_sharing > 1 else "one a device"
    kind = f"{link.kind} {link.generation}" if link.generation and link.generation != link.kind else link.kind
    line = branch.add(f"{link.id} ({kind}), {link.between[0]} to {link.between[1]}, {sharers}, {link.duplex} duplex")
    _figures(line, link, evidence)


def _domain(branch: Branch, domain: Domain, evidence: Evidence) -> Branch:
    size = "unbounded" if domain.devices is None else f"{domain.devices} devices"
    line = branch.add(f"{domain.id}: {size}, {domain.network}, {domain.topology}")
    _figures(line, domain, evidence)
    return line


def _groups(system: System) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part, name in [(link, f"link {link.id}") for link in system.links] + [(d, f"domain {d.id}") for d in system.domains]:
        if part.group:
            found.setdefault(part.group, []).append(name)
    return found


# --- to text


def print_tree(profile: System | DeviceProfile, width: int) -> None:
    """The tree, the lowest grade and the list of sources on standard output, in lines of at most ``width`` but for addresses."""
    evidence = Evidence()
    root = tree_of(profile, evidence)
    lines = render(root, max(width, _LEAST_WIDTH), _draws_boxes())
    lines += ["", evidence.summary(), "", "sources"]
    lines += numbered({f"{source} ({as_of})": number for (source, as_of), number in evidence.sources.items()}, width)
    click.echo("\n".join(lines))


def _draws_boxes() -> bool:
    """Box drawing is for terminals that have it; a pipe gets plain characters."""
    return sys.stdout.isatty() and "utf" in (sys.stdout.encoding or "").lower()


def render(root: Branch, width: int, boxes: bool) -> list[str]:
    """The lines of a tree: no line is wider than ``width``; what stands at the right edge never wraps."""
    tee, end, bar = ("├─ ", "└─ ", "│  ") if boxes else ("|- ", "`- ", "|  ")
    lines: list[str] = []

    def write(branch: Branch, first: str, rest: str) -> None:
        hang = rest + (bar if branch.below else "   ")
        space = width - max(len(first), len(hang)) - (len(branch.mark) + 1 if branch.mark else 0)
        texts = textwrap.wrap(branch.text, max(space, 16), break_on_hyphens=False)
        for number, text in enumerate(texts):
            line = (hang if number else first) + text.replace(_HARD_SPACE, " ")
            lines.append(line if number or not branch.mark else line.ljust(width - len(branch.mark)) + branch.mark)
        for child in branch.below:
            last = child is branch.below[-1]
            write(child, rest + (end if last else tee), rest + ("   " if last else bar))

    write(root, "", "")
    return lines
