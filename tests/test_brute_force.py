"""Whole plans of random small problems against every decision of their space (``tests/benchmarks`` has many more of them)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import brute
import pytest

from planner.search import find

SEEDS = 100


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_plan_is_the_best_of_every_decision(seed: int) -> None:
    """The objective to 1e-9, a bound no worse, and no plan only where no decision meets every limit."""
    wrong, _ = brute.difference(brute.problem(seed))
    assert wrong is None


def test_what_is_drawn_is_of_every_kind() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(SEEDS):
        inputs = brute.problem(seed)
        options, load = inputs.options, inputs.workload
        drawn.update(options.model_fields_set)
        drawn.update([options.objective, inputs.model.id + str(len(inputs.model.blocks))])
        drawn.update(name for name in ("ttft_s", "tpot_s") if getattr(load, name) is not None)
        drawn.update(f"{constraint.sort} {constraint.rule}" for constraint in options.constraints)
        drawn.update(["several variants"] if len(options.variants) > 1 else [])
        drawn.update(f"{selection.devices} devices" for selection in inputs.hardware.values())
    for name in ("cost", "throughput", "latency", "ttft_s", "tpot_s", "tiers", "rate", "concurrency", "spare", "devices",
                 "max_usd_per_hour", "max_power_kw", "several variants", "1 devices", "2 devices", "4 devices"):  # fmt: skip
        assert drawn[name] >= 3, (name, drawn)
    assert sum(count for name, count in drawn.items() if name.startswith(("pin ", "ban "))) >= 20


def test_a_bound_that_is_too_tight_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells bounded at half of what they reach stay closed, and plans get worse."""
    seeds = [seed for seed in range(40) if brute.best_of_all(brute.problem(seed)).value is not None]
    real = find.mixed_cell_merit

    def halved(*given: Any) -> Any:
        merit, rate, tpot = real(*given)
        return merit / 2.0 * (merit > 0.0), rate, tpot

    monkeypatch.setattr(find, "mixed_cell_merit", halved)
    assert any(brute.difference(brute.problem(seed))[0] is not None for seed in seeds)
