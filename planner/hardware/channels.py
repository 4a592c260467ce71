"""What a device's traffic with a memory takes of every part on its way, in either direction: linear limits on time.

A transfer of R bytes that the device reads and W that it writes keeps a channel busy for ``read R + write W`` seconds, so the
transfers of a time t keep ``sum (read R + write W) <= t`` on every channel.

A *memory* serves one access at a time: ``1/read`` and ``1/write``, the achieved fraction that of ``efficiency`` in both.
A *link* does ``a = bandwidth efficiency`` one way and ``b = bandwidth reverse_efficiency`` the other. What it carries a second
lies in the convex hull of (0, 0), (a, 0), (0, b) and, where both directions may be busy at once, a corner (p, q): any mix of
these over time is possible, and no more. The corner is (a, b) on a full-duplex link, or ``both_ways`` each way where that is
known (at most a and b); a half-duplex link has none but a known one. With a corner beyond the line from (a, 0) to (0, b) the
hull has two edges, ``R / a + W (1 - p/a) / q <= t`` and ``W / b + R (1 - q/b) / p <= t``: two channels. Else (both ways at once
are no faster than taking turns) the line is the only edge: ``R / a + W / b <= t``. Every hull grows with each of its figures,
so no time grows with a rate.
A *contention group* carries, of all its links and networks together, what the widest of them does; a byte that passes two of
its links counts twice. It is half duplex if one of its links is.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from planner.hardware.schema import Domain, Link, System, Tier


class Channel(NamedTuple):
    """A linear limit: seconds of ``id`` for each byte that a device reads over it, and for each that it writes.

    ``shared``: of a contention group, in place of one part.
    """

    id: str
    read: float
    write: float
    shared: bool = False


def directions(name: str, reads: float, writes: float, corner: tuple[float, float] | None) -> tuple[Channel, ...]:
    """The edges of the hull of ``reads`` and ``writes`` bytes/s alone and ``corner`` (reads, writes) at once."""
    if corner is None or corner[0] / reads + corner[1] / writes <= 1.0:
        return (Channel(name, 1.0 / reads, 1.0 / writes),)
    p, q = corner
    main = Channel(name, 1.0 / reads, max(1.0 - p / reads, 0.0) / q)
    return main, Channel(f"{name} (writes)", max(1.0 - q / writes, 0.0) / p, 1.0 / writes)


def link_rates(link: Link) -> tuple[float, float]:
    """Achieved bytes/s per device of reads alone and of writes alone, all sharers at once."""
    back = link.reverse_efficiency if link.reverse_efficiency is not None else link.efficiency
    return link.rate_per_device, link.bandwidth.value * back.value / link.devices_sharing


def link_channels(link: Link) -> tuple[Channel, ...]:
    """The limits that a link sets."""
    reads, writes = link_rates(link)
    corner = (reads, writes) if link.duplex == "full" else None
    if link.both_ways is not None:
        each = link.both_ways.value / link.devices_sharing
        corner = (min(each, reads), min(each, writes))
    return directions(link.id, reads, writes, corner)


def memory_channel(tier: Tier, passes: int) -> Channel:
    """The limit that a memory sets on bytes that pass it so many times: what lies on the way is written and read again."""
    reads = 1.0 / tier.rate_per_device
    writes = reads if tier.write is None else tier.devices_sharing / (tier.write.value * tier.efficiency.value)
    along, again = passes - passes // 2, passes // 2
    return Channel(tier.id, along * reads + again * writes, along * writes + again * reads)


def group_channels(system: System, group: str) -> tuple[Channel, ...]:
    """The limits of what one device's links and networks of a group carry together, none where it has one member only."""
    links = [link for link in system.links if link.group == group]
    networks = [domain for domain in system.domains if domain.group == group]
    if len(links) + len(networks) < 2 or not links:
        return ()
    rates = [link_rates(link) for link in links if link.bandwidth.known]
    rates += [(each, each) for domain in networks if (each := _port(domain))]
    if not rates:
        return ()
    reads, writes = max(r for r, _ in rates), max(w for _, w in rates)
    half = any(link.duplex == "half" for link in links)
    channels = directions(f"{group} (shared)", reads, writes, None if half else (reads, writes))
    return tuple(channel._replace(shared=True) for channel in channels)


def _port(domain: Domain) -> float:
    """Achieved one-way bytes/s of a device to one peer; 0 where nobody has described the network."""
    known = domain.bandwidth.known and domain.p2p_efficiency.known
    return domain.bandwidth.value * domain.p2p_efficiency.value if known else 0.0


def tier_channels(system: System, tier_id: str) -> tuple[Channel, ...]:
    """Every limit on a device's traffic with a memory: the memory, what lies on the way in order, then their groups."""
    tiers, links = {tier.id: tier for tier in system.tiers}, {link.id: link for link in system.links}
    passes = Counter((tier_id, *system.tier(tier_id).via))
    found: list[Channel] = []
    grouped: Counter[str] = Counter()
    for name, times in passes.items():
        if name in tiers:
            found.append(memory_channel(tiers[name], times))
            continue
        found += (c._replace(read=c.read * times, write=c.write * times) for c in link_channels(links[name]))
        if (group := links[name].group) is not None:
            grouped[group] += times
    for group, times in grouped.items():
        found += (c._replace(read=c.read * times, write=c.write * times) for c in group_channels(system, group))
    return tuple(found)


def network_shares(system: System) -> dict[str, dict[str, float]]:
    """Seconds of a group's channel for each byte that a device sends over a domain, while it receives as much."""
    return {
        channel.id: {domain.id: channel.read + channel.write for domain in system.domains if domain.group == group}
        for group in dict.fromkeys(domain.group for domain in system.domains if domain.group)
        for channel in group_channels(system, group)
    }
