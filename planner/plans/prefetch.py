"""What is fetched ahead: tables whose rows the tokens of a pass name, so that they may come while the layers before them run,
and the entries of a prefix cache that the requests of a prefill pass find.

The tokens of a prefill pass are known long before it starts, and what a stage behind the first needs is known while the pass is
in the stages before. Then all that a resource carries in a pass need only fit into the pass: ``T >= sum of loads``.
The tokens of a decode step are known when the step before ends, so the rows of a layer must come while the layers before it run.
With ``n`` layers of time ``t'`` of each window before, the first of a window's layers waits where that is too short:
``t >= base + exposed + (loads of tables due by then and of streams of the layers before + latency - sum n t') / repeat``
(all layers of the window are due with its first: on the safe side).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from planner.footprint.pieces import ModelPieces, Window
from planner.performance.passes import PassTimes
from planner.performance.rates import TierRate
from planner.plans.window_items import Item

WAIT = "waiting for "
"""What the kind of a time row begins with where a window waits for rows that the layers before it did not hide."""

Entries = dict[int, float]


@dataclass(frozen=True)
class Charged:
    """One window of a stage and phase: the column of its time, its base (ms), what is exposed, and loads by channel (ms);
    ``beside``: what networks take of a channel meanwhile (ms)."""

    column: int
    base: float
    exposed: Entries
    loads: dict[str, Entries]
    beside: Mapping[str, float]


class Ahead:
    """Collects what is fetched ahead, then yields the rows that it adds to the program."""

    def __init__(
        self,
        pieces: ModelPieces,
        layers: Sequence[tuple[int, ...]],
        passes: Mapping[str, PassTimes],
        charged: Mapping[tuple[int, int, str], Charged],
    ) -> None:
        self.pieces, self.layers, self.passes, self.charged = pieces, layers, passes, charged
        self.choices: dict[int, list[tuple[int, Item, TierRate]]] = {}

    def add(self, index: int, stage: int, item: Item, tier: TierRate) -> None:
        """Column ``index``: the item of a stage lies in that memory."""
        self.choices.setdefault(stage, []).append((index, item, tier))

    def _loads(self, stage: int, phase: str, latency: bool, due: float = float("inf")) -> dict[str, Entries]:
        """Milliseconds of each resource for the tables of a stage that a layer before ``due``, or that one, needs."""
        loads: dict[str, Entries] = {}
        for index, item, tier in self.choices.get(stage, ()):
            repeat = self.passes[phase].repeats[stage][item.window]
            if not repeat or not item.read_in(phase):
                continue
            if due < float("inf") and self.pieces.windows[item.window].first_layer > due:
                continue
            moved = item.moved("prefetch", tier.granule, phase) * repeat
            wait = item.fetches[phase] * tier.latency if latency else 0.0
            for channel in tier.channels:
                if channel.read:
                    loads.setdefault(channel.id, {})[index] = (moved * channel.read + wait) * 1e3
        return loads

    def deadline_rows(self) -> Iterator[tuple[tuple[int, int, str], str, Entries, float]]:
        """``((stage, window, phase), kind, entries, bound)`` of the decode step's first stage, in the order of need."""
        if "decode" not in self.passes:
            return
        repeats = self.passes["decode"].repeats[0]
        needy = {item.window for _, item, _ in self.choices.get(0, ()) if repeats[item.window] and item.read_in("decode")}
        for window in sorted(needy, key=lambda number: (self.pieces.windows[number].first_layer, number)):
            first = self.pieces.windows[window].first_layer
            mine = self.charged[(0, window, "decode")]
            before = {
                number: count
                for number, other in enumerate(self.pieces.windows)
                if repeats[number] and (count := sum(layer < first for layer in layers_of(other)))
            }
            for rid, due in self._loads(0, "decode", True, first).items():
                entries: Entries = {mine.column: -1.0}
                for index, value in mine.exposed.items():
                    if index != mine.column:
                        entries[index] = entries.get(index, 0.0) + value
                for index, value in due.items():
                    entries[index] = entries.get(index, 0.0) + value / repeats[window]
                fixed = mine.base
                for number, count in before.items():
                    other = self.charged[(0, number, "decode")]
                    entries[other.column] = -count / repeats[window]
                    fixed += count * other.beside.get(rid, 0.0) / repeats[window]
                    for index, value in other.loads.get(rid, {}).items():
                        entries[index] = entries.get(index, 0.0) + count * value / repeats[window]
                yield (0, window, "decode"), WAIT + rid, entries, -fixed

    def pass_rows(self) -> Iterator[tuple[int, str, str, Entries, float]]:
        """``(stage, phase, channel, milliseconds of it in a pass, those that networks take)`` where the whole pass hides it."""
        for stage in sorted(self.choices):
            for phase, times in self.passes.items():
                if phase == "decode" and stage == 0:
                    continue
                for rid, loads in self._loads(stage, phase, False).items():
                    entries, fixed = dict(loads), 0.0
                    for (at, window, which), charged in self.charged.items():
                        if (at, which) == (stage, phase):
                            fixed += times.repeats[stage][window] * charged.beside.get(rid, 0.0)
                            for index, value in charged.loads.get(rid, {}).items():
                                entries[index] = entries.get(index, 0.0) + times.repeats[stage][window] * value
                    yield stage, phase, rid, entries, fixed


def layers_of(window: Window) -> Sequence[int]:
    """The layers that a window stands in (-1: before them all)."""
    return window.at or range(window.first_layer, window.first_layer + window.layers)
