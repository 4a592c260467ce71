"""A comparison: plans side by side, what is sure about their order and what is not."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.plans.schema import Amount, Count, Interval, Number, Plan, Share

Status = Literal["planned", "infeasible", "refused", "stopped"]
"""``infeasible``: proved, with the conflict; ``refused``: the inputs do not go together (an unknown figure, no price of the
basis); ``stopped``: interrupted or out of time before there was a plan."""
Verdict = Literal["certain", "leaning", "a toss-up", "the same"]
_Row = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StreamIntervals(_Part):
    """USD per million tokens; ``null`` for a stream without tokens."""

    input_hit: Interval | None
    input_miss: Interval | None
    output: Interval | None
    blended: Interval


class MemoryUse(_Part):
    """What lies in all memories of a kind (weights, tables, caches), what they hold together, and of the device's own the
    fullest (with reserves and buffers)."""

    kind: str
    role: str
    bytes: Count
    capacity_bytes: Count
    fullest_bytes: Count | None
    fullest_capacity_bytes: Count | None


class Bound(_Part):
    """What most of a phase's time goes to."""

    phase: Literal["prefill", "decode"]
    resource: str
    share: Share


class PricePaid(_Part):
    """What one system of a kind of hardware costs: capital (``capex_street`` …) or, by the hour, rent."""

    hardware: str
    basis: str
    usd: Amount
    grade: str
    as_of: str | None


class Figures(_Part):
    """A plan's figures as the table shows them. ``watts``: stated, of all units paid for; ``watts_drawn``: on the meter, at the
    basis's share of stated power and PUE, from which joules follow. ``tokens_per_s``: output of the whole deployment.
    Times are those of ``load``; ``random_requests_per_s``: most that keep the limits if they come at random."""

    devices: Count
    devices_used: Count
    systems: Number
    usd_per_million: StreamIntervals
    usd_per_hour: Amount
    tokens_per_s: Interval
    tokens_per_s_per_device: Interval
    tokens_per_s_per_user: Interval
    ttft_ms: Interval
    tpot_ms: Interval
    load: str
    concurrency: Amount
    random_requests_per_s: Amount
    watts: Amount
    watts_drawn: Amount
    joules_per_output_token: Interval
    memories: list[MemoryUse]
    bottlenecks: list[Bound]
    prices: list[PricePaid]
    runtime: str
    lowest_grade: str
    evidence: str
    gap: Amount
    proved: bool


class UnitPrice(_Part):
    """Price of one purchasable unit as it is, and at the break-even."""

    hardware: str
    devices: Count
    usd: Amount
    break_even_usd: Amount


class BreakEven(_Part):
    """What the prices of a row's hardware are to be multiplied with for its tokens to cost what those of row ``against`` do,
    the deployment kept: below 1 for who loses, above for who leads. ``scale`` and ``units`` are empty where no price is low
    enough, electricity or colocation alone costing as much."""

    against: _Row
    what: Literal["capital", "rent"]
    scale: Amount | None
    units: list[UnitPrice]


class Equal(_Part):
    """Of the budget that the first row sets (USD an hour or stated kW): how many copies of a row's deployment it pays for, what
    they use and leave, and the output tokens/s that they make. A demand, or a limit on requests in flight, needs no second."""

    copies: Count
    used: Amount
    unused: Amount
    tokens_per_s: Interval


class Row(_Part):
    """One model on one hardware.

    ``reference``: the row that ``ratio`` and ``probability_better`` refer to, the first plan of the same model; they are ``null``
    without a plan, or where ``excluded`` says why it is not ranked. ``objective`` is the plan's, at its figures' values, with the
    interval that the model and its figures leave. ``ratio`` = objective over the reference's. ``probability_better``: that this
    row is better than the reference (1/2 for what is the same), ``probability_error`` its standard error from sampling;
    ``probability_unshared``: the same if no error were shared. ``within_gap``: the searches stopped so early that another
    order is not ruled out. ``rank`` counts from 1 among the rows of the same model, ``probability_best`` is over them.
    """

    model: str
    hardware: str
    status: Status
    reason: str | None
    conflict: list[dict[str, Any]] | None
    excluded: str | None
    plan: Plan | None
    figures: Figures | None
    objective: Interval | None
    reference: _Row | None
    ratio: Amount | None
    probability_better: Share | None
    probability_error: Share | None
    probability_unshared: Share | None
    verdict: Verdict | None
    within_gap: bool
    rank: Annotated[int, Field(ge=1, strict=True)] | None
    probability_best: Share | None
    break_even: BreakEven | None
    equal: Equal | None


class Sampling(_Part):
    """How probabilities were found: draws, seed, and which groups of figures were drawn once for all rows or per hardware."""

    draws: Count
    seed: Count
    shared: list[str]
    independent: list[str]


class Budget(_Part):
    """With ``--equal``: what every row may spend, which is what the first spends."""

    what: Literal["cost", "power"]
    amount: Amount
    unit: Literal["USD/h", "kW"]


class Comparison(_Part):
    """Rows in the order asked (of a matrix all hardware of a model, then the next). ``models`` and ``hardware`` are its axes:
    row ``i * len(hardware) + j`` is model i on hardware j. ``pairwise[i][j]``: probability that row i is better than row j,
    ``null`` where either is not ranked and on the diagonal; ``pairwise_error`` its standard error. ``summary``: sentences for a
    person, the verdict first; ``notes``: what to keep in mind when reading the figures."""

    schema_version: Literal[1]
    models: Annotated[list[str], Field(min_length=1)]
    hardware: Annotated[list[str], Field(min_length=1)]
    workload: str
    objective: Literal["cost", "throughput", "latency"]
    unit: str
    better: Literal["lower", "higher"]
    basis: str
    currency: str
    as_of: str
    utilisation: Share
    budget: Budget | None
    rows: Annotated[list[Row], Field(min_length=1)]
    pairwise: list[list[Share | None]]
    pairwise_error: list[list[Share | None]]
    sampling: Sampling
    summary: list[str]
    notes: list[str]
    stopped: str | None

    def cell(self, model: int, hardware: int) -> Row:
        """The row of a model (by position on its axis) on a hardware."""
        return self.rows[model * len(self.hardware) + hardware]

    def to_data(self) -> dict[str, Any]:
        """Plain data in the comparison's own key order; plans as in their own files."""
        data = self.model_dump(mode="json", exclude={"rows": {"__all__": {"plan"}}})
        rows = []
        for row, plain in zip(self.rows, data["rows"], strict=True):
            at = list(Row.model_fields).index("plan")
            items = list(plain.items())
            plan = None if row.plan is None else row.plan.to_data()
            rows.append(dict([*items[:at], ("plan", plan), *items[at:]]))
        return {**data, "rows": rows}

    def to_json(self) -> str:
        """The canonical text."""
        from planner.plans.numbers import canonical, to_json

        return to_json(canonical(self.to_data()))
