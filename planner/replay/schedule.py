"""One pass of one stage, event by event: kernels in the order of the layers, copies ahead of them, buffers, shared channels.

Independent of the formula for the time of a step, which charges every layer of a window the largest of its rows
(``planner.plans.tiers``): here a clock runs, and what a layer waits for is what has not come by then.

* Kernels run one after another. Before its kernels a layer waits for its streamed weights and caches, for table rows due by then,
  and for what it fetches on demand, in this order.
* A copy for a layer may begin when the streamed layer two before it has run, since buffers hold two layers' share. Copies of a
  memory go first in, first out; passes follow one another, so the copies of a pass's first layers run in the pass before.
* Rows of tables are asked for when the tokens are known: when a decode step starts in its first stage, a pass ahead elsewhere.
* A channel does one second of work a second. On-demand fetches come first, then networks and kernels (device memory), then copies
  in the order of need; each takes what the channels on its way have left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from planner.plans.contention import NetworkTime
from planner.plans.prefetch import layers_of
from planner.plans.states import PoolState
from planner.plans.tiers import reading_stages

Work = dict[str, float]
"""Seconds of each channel."""
PASSES = 4
"""Passes that are run; the last is reported, when buffers and copies have settled."""
FIXED = "runtime and stages"
LEAST_S = 1e-15
"""Work and time below this are none."""
LEAST_SHARE = 1e-12
COPIES, ROWS = "copies", "rows"
Key = tuple[int, int, str, str]
"""Pass, layer, copies or rows, memory."""


@dataclass(frozen=True)
class Layer:
    """What one layer does in a pass: ``kernel_s`` with all in device memory, work of channels while it runs (``beside``), what it
    fetches on demand after ``latency_s``, and copies and rows that have to be there, by memory."""

    label: str
    layer: int
    kernel_s: float
    beside: Work = field(default_factory=dict)
    fetch: Work = field(default_factory=dict)
    latency_s: float = 0.0
    copies: Mapping[str, Work] = field(default_factory=dict)
    rows: Mapping[str, Work] = field(default_factory=dict)
    rows_latency_s: float = 0.0


@dataclass(frozen=True)
class Event:
    """Something on the time line of the reported pass (seconds since it began; a copy may begin before)."""

    lane: str
    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Schedule:
    """``pass_s``: from the end of the pass before to the end of the last; ``resident_s``: kernels alone; ``waits``: seconds that
    each layer waited, by label and layer, where it did; ``formula_s``: what the plan says."""

    pool: str
    phase: str
    pass_s: float
    resident_s: float
    formula_s: float
    waits: tuple[tuple[str, int, float], ...]
    events: tuple[Event, ...]

    @property
    def stall_free(self) -> bool:
        """Nothing waits (to a billionth of the pass)."""
        return self.pass_s <= self.resident_s * (1.0 + 1e-9)


class _Job:
    """Work under way or waiting: ``left`` of 1."""

    def __init__(self, lane: str, label: str, work: Work) -> None:
        self.lane, self.label, self.work, self.left = lane, label, {k: v for k, v in work.items() if v > LEAST_S}, 1.0
        self.start: float | None = None
        self.end = 0.0
        if not self.work:
            self.left = 0.0

    @property
    def done(self) -> bool:
        return self.left <= 0.0


class _Machine:
    """A clock, the channels, and the copies and rows that are asked for, in the order of need."""

    def __init__(self, layers: Sequence[Layer], passes: int, rows_known_ahead: bool) -> None:
        self.clock = 0.0
        self.begun = -1
        """The pass that runs."""
        self.finished: set[tuple[int, int]] = set()
        self.ahead = rows_known_ahead
        self.jobs: dict[Key, _Job] = {}
        self.streamed: list[tuple[int, int]] = []
        for number in range(passes):
            for index, layer in enumerate(layers):
                if layer.copies:
                    self.streamed.append((number, index))
                for key in jobs_of(layer, number, index):
                    work = (layer.copies if key[2] == COPIES else layer.rows)[key[3]]
                    self.jobs[key] = _Job(f"{key[2]} from {key[3]}", f"{layer.label} {layer.layer}", work)
        self.place = {place: number for number, place in enumerate(self.streamed)}
        self.queue = deque(sorted(self.jobs, key=lambda key: (key[0], key[1], key[2] == COPIES, key[3])))

    def ready(self, key: Key) -> bool:
        """Whether a copy has buffers, or the tokens are known that name rows."""
        if key[2] == ROWS:
            return key[0] <= self.begun + (1 if self.ahead else 0)
        place = self.place[key[:2]]
        return place < 2 or self.streamed[place - 2] in self.finished

    def pending(self) -> Iterator[_Job]:
        """What may move now: of each memory the first that is not done, copies and rows apart."""
        heads: set[tuple[str, str]] = set()
        for key in self.queue:
            job, lane = self.jobs[key], key[2:]
            if not job.done and lane not in heads:
                heads.add(lane)
                if self.ready(key):
                    yield job

    def step(self, most: float, first: Sequence[_Job], beside: Work) -> None:
        """Run until something ends, at most so many seconds; ``first`` come before all, ``beside`` is taken of channels."""
        left: dict[str, float] = {}
        active: list[tuple[_Job, float]] = []

        def give(job: _Job) -> None:
            rate = min(max(left.get(channel, 1.0), 0.0) / seconds for channel, seconds in job.work.items())
            if rate > 0.0:
                for channel, seconds in job.work.items():
                    left[channel] = left.get(channel, 1.0) - rate * seconds
                active.append((job, rate))

        for job in first:
            if not job.done:
                give(job)
        for channel, share in beside.items():
            left[channel] = left.get(channel, 1.0) - share
        for job in self.pending():
            give(job)
        seconds = min((job.left / rate for job, rate in active), default=float("inf"))
        seconds = min(seconds, most)
        if seconds == float("inf"):
            raise AssertionError("a layer waits for what nothing brings")
        for job, rate in active:
            job.start = self.clock if job.start is None else job.start
            job.left -= rate * seconds
            if job.left <= LEAST_SHARE:
                job.left, job.end = 0.0, self.clock + seconds
        self.clock += seconds
        while self.queue and self.jobs[self.queue[0]].done:
            self.queue.popleft()

    def run_until(self, until: float, beside: Work) -> None:
        """Run to a time."""
        while self.clock < until - LEAST_S:
            self.step(until - self.clock, (), beside)

    def run_for(self, wanted: Sequence[_Job], first: Sequence[_Job] = ()) -> None:
        """Run until all of these are done."""
        while any(not job.done for job in wanted):
            self.step(float("inf"), first, {})


def run_passes(
    layers: Sequence[Layer], fixed_s: float, rows_known_ahead: bool, passes: int = PASSES
) -> tuple[float, list[float], list[Event]]:
    """``(seconds of the last pass, what each layer waited in it, its events)`` of a pass that repeats; ``fixed_s`` ends it."""
    machine = _Machine(layers, passes, rows_known_ahead)
    ended, waits, events = 0.0, [0.0] * len(layers), list[Event]()
    for number in range(passes):
        machine.begun, before, events = number, ended, []
        for index, layer in enumerate(layers):
            asked = machine.clock
            mine = [machine.jobs[key] for key in jobs_of(layer, number, index)]
            machine.run_for(mine)
            late = layer.rows_latency_s if layer.rows and not rows_known_ahead else 0.0
            machine.run_until(max(machine.clock, before + late) + layer.latency_s, {})
            fetch = _Job("fetched on demand", f"{layer.label} {layer.layer}", layer.fetch)
            machine.run_for((fetch,), (fetch,))
            began = machine.clock
            waits[index] = began - asked
            share = {channel: seconds / layer.kernel_s for channel, seconds in layer.beside.items()} if layer.kernel_s else {}
            machine.run_until(began + layer.kernel_s, share)
            machine.finished.add((number, index))
            events.append(Event("kernels", f"{layer.label} {layer.layer}", began - before, machine.clock - before))
            moved = [job for job in (fetch, *mine) if job.start is not None]
            events += [Event(job.lane, job.label, (job.start or 0.0) - before, job.end - before) for job in moved]
        machine.run_until(machine.clock + fixed_s, {})
        if fixed_s > 0.0:
            events.append(Event("kernels", FIXED, machine.clock - fixed_s - before, machine.clock - before))
        last, ended = machine.clock - before, machine.clock
    return last, waits, events


def jobs_of(layer: Layer, number: int, index: int) -> Iterator[Key]:
    """Keys of what a layer of a pass has to have."""
    yield from ((number, index, COPIES, tier) for tier in layer.copies)
    yield from ((number, index, ROWS, tier) for tier in layer.rows)


def layers_of_stage(state: PoolState, phase: str, stage: int) -> list[Layer]:
    """The layers of a stage in their order, with the work that the placement gives them."""
    problem, pieces, rates = state.problem, state.pool.pieces, state.pool.rates
    times, shapes = state.passes[phase], state.decision.row().shapes
    networks = NetworkTime(pieces, shapes, rates, state.passes)
    tiers = {tier.id: tier for tier in rates.tiers}
    windows = (*pieces.windows, *pieces.draft)
    memory = rates.memory_id
    made: list[tuple[int, int, Layer]] = []
    moving: dict[int, list[tuple[int, float]]] = {}
    for index, (choice, share) in enumerate(zip(problem.choices, state.shares, strict=True)):
        owner = problem.items[choice.item]
        if share <= 1e-12 or choice.mode == "resident":
            continue
        for reader in owner.windows if choice.mode != "prefetch" else (owner.window,):
            if stage in reading_stages(list(problem.stages), choice.stage, owner.window, reader):
                moving.setdefault(reader, []).append((index, float(share)))
    for number, window in enumerate(windows):
        repeat = times.repeats[stage][number]
        if not repeat or not problem.stages[stage][number]:
            continue
        blocks = times.windows[number]
        kernel = sum(float(block.total[0]) for block in blocks)
        beside = {channel: ms / 1e3 for channel, ms in networks.of(number, phase).items()}
        beside[memory] = sum(float(block.memory[0]) for block in blocks)
        fetch: Work = {}
        latency = rows_latency = 0.0
        copies: dict[str, Work] = {}
        rows: dict[str, Work] = {}
        for index, share in moving.get(number, ()):
            choice = problem.choices[index]
            item, tier = problem.items[choice.item], tiers[choice.tier]
            moved = item.moved(choice.mode, tier.granule, phase, number) * share
            if choice.mode == "prefetch":
                if item.read_in(phase):
                    _add(rows.setdefault(tier.id, {}), {c.id: moved * c.read for c in tier.channels})
                    rows_latency = max(rows_latency, item.fetches[phase] * tier.latency * share)
                continue
            written = item.written(choice.mode, tier.granule, phase, number) * share
            work = {c.id: (moved - written) * c.read + written * c.write for c in tier.channels}
            if item.kind in ("routed", "static"):
                work[memory] = moved / rates.memory_bytes_per_s
            if item.exposed(choice.mode, phase, number):
                slowest = (moved - written) / tier.bytes_per_s
                _add(fetch, {**work, f"{tier.id} on demand": slowest})
                latency += item.fetches[phase] * tier.latency * share
            else:
                _add(copies.setdefault(tier.id, {}), work)
        place = list(layers_of(window))
        offset = sum(row[number] for row in _stages_before(state, stage)) if number < len(pieces.windows) else 0
        count = problem.stages[stage][number]
        turns = max(round(repeat / count), 1) if number >= len(pieces.windows) else 1
        for layer in place[offset : offset + count] * turns:
            entry = Layer(window.name, layer, kernel, beside, fetch, latency, copies, rows, rows_latency)
            made.append((len(pieces.windows) + layer if number >= len(pieces.windows) else layer, number, entry))
    ordered = sorted(made, key=lambda row: (row[0], row[1]))
    return [entry for _, _, entry in ordered]


def _stages_before(state: PoolState, stage: int) -> list[tuple[int, ...]]:
    """Layers of every real stage before the first that is like this one."""
    every = state.pool.pieces.stages(state.decision.pp)
    alike = state.pool.pieces.stage_table(state.decision.pp)
    return every[: every.index(alike[stage])]


def _add(total: Work, more: Mapping[str, float]) -> None:
    for channel, seconds in more.items():
        total[channel] = total.get(channel, 0.0) + seconds


def schedule(state: PoolState, phase: str) -> Schedule:
    """The slowest stage of a phase, run event by event beside what the formula says of it."""
    stage = state.times.slowest[phase]
    layers = layers_of_stage(state, phase, stage)
    fixed = float(state.passes[phase].step[0] + state.passes[phase].hop[0])
    total, waits, events = run_passes(layers, fixed, phase == "prefill" or stage > 0)
    resident = fixed + sum(layer.kernel_s for layer in layers)
    waited = tuple((layer.label, layer.layer, wait) for layer, wait in zip(layers, waits, strict=True) if wait > LEAST_S)
    return Schedule(state.decision.phase, phase, total, resident, state.times.phase_s[phase], waited, tuple(events))
