"""A gate for a pipeline: fails when serving a plan's workload costs more than it did.

    python cost-gate.py plan.json [0.05]

plan.json, kept beside the code, was written by `planner plan … -o plan.json`. Its question is asked again with the model,
hardware, runtime, prices and planner of today; exit code 1 where a million tokens cost over 5 % more. Figures of the hardware
that were replaced (`--set`) are today's again, and what was a file must have a name of the catalogue.
"""

import sys
from pathlib import Path

from planner import plan
from planner.cli.from_plan import old_workload
from planner.plans import read_plan
from planner.plans.inputs import Asked
from planner.plans.read import inputs_of


def main() -> None:
    """Plan again and compare."""
    path, limit = sys.argv[1], float(sys.argv[2] if len(sys.argv) > 2 else 0.05)
    old = read_plan(Path(path).read_text(encoding="utf-8"), path)
    asked = inputs_of(old, path)
    given = asked.options
    options = {name: getattr(given, name) for name in Asked.__annotations__ if name != "max_move_bytes"}
    new = plan(
        old.model,
        old.hardware,
        workload=asked.workloads or old_workload(asked),
        runtime=asked.runtime.id,
        prices=asked.prices.id,
        site=asked.prices.site,
        slo_on="high" if given.within_high else "expected",
        allow_announced=True,
        **options,
    )
    before, now = old.cost.usd_per_million.blended, new.cost.usd_per_million.blended
    assert before is not None and now is not None
    rise = now / before - 1.0
    print(f"{old.model} on {old.hardware}: {before:.4g} -> {now:.4g} USD per million tokens ({rise:+.1%}, limit {limit:+.0%})")
    if rise > limit:
        print("dearer than before: see planner diff; keep a new plan.json if that is meant")
        sys.exit(1)


if __name__ == "__main__":
    main()
