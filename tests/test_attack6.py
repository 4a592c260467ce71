"""What an attack of bad points, calibrations and curves found: one line and exit code 2, nothing that a plan cannot hold."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from planner.accuracy.points import read_points
from planner.api import plan
from planner.cli.common import verdict
from planner.errors import InputError, ReaderGone
from planner.plans import verify_plan
from planner.runtimes import RUNTIMES, Calibration, load_calibration
from planner.runtimes.schema import Runtime
from planner.workload.prefix import PrefixCache

HEADER = "id,model,hardware,runtime,isl,osl,concurrency,tp,ttft_s,tpot_s"


def points_file(folder: Path, ttft: str, tpot: str) -> Path:
    path = folder / "points.csv"
    path.write_text(f"{HEADER}\none,llama-3.1-8b,h100-node,vllm,1024,256,8,1,{ttft},{tpot}\n")
    return path


def changed(figures: dict[str, Any], spread: dict[str, Any] | None = None) -> dict[str, Any]:
    """The built-in calibration with other figures of vllm, and every interval replaced."""
    data = load_calibration().model_dump(mode="json", by_alias=True)
    data["runtimes"]["vllm"] |= figures
    for one in data["spread"].values():
        one |= spread or {}
    return data


def test_a_header_of_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{number}" for number in range(100_000)) + "\n")
    start = time.perf_counter()
    with pytest.raises(InputError, match="no column 'id'"):
        read_points(path)
    assert time.perf_counter() - start < 5.0


def test_a_column_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text(f"{HEADER},tp,isl\n")
    with pytest.raises(InputError, match="has the column 'tp' twice"):
        read_points(path)


@pytest.mark.parametrize(("ttft", "tpot"), [("1e-300", "0.01"), ("0.1", "5e-324"), ("0.1", "9e-10")])
def test_times_below_a_nanosecond_are_not_believed(tmp_path: Path, ttft: str, tpot: str) -> None:
    points, skipped = read_points(points_file(tmp_path, ttft, tpot))
    assert (len(points), skipped) == (0, [("one", "number-unreadable")])


def test_times_of_a_nanosecond_are_points(tmp_path: Path) -> None:
    points, skipped = read_points(points_file(tmp_path, "1e-9", ""))
    assert (len(points), skipped) == (1, [])


@pytest.mark.parametrize("missing", ["measured", "sibling", "kin"])
def test_a_calibration_has_an_interval_of_every_evidence(missing: str) -> None:
    data = changed({})
    del data["spread"][missing]
    with pytest.raises(ValidationError, match=f"holds no interval of {missing}"):
        Calibration.model_validate(data)


@pytest.mark.parametrize(
    "figures",
    [{"queue": 1e6}, {"first_token_steps": 1e4}, {"queue": 1e-9}, {"step_s": 1e-15}, {"client_s": 5e-324}],
)
def test_figures_that_no_plan_holds_are_refused(figures: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(changed(figures))


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 10.0])
@pytest.mark.parametrize("count", [0.0, 1e-6, 1e3])
@pytest.mark.parametrize("end", [0.1, 10.0])
@pytest.mark.parametrize("floors", [0.0101, 99.9])
def test_what_a_calibration_may_say_can_stand_in_a_plan(seconds: float, count: float, end: float, floors: float) -> None:
    names = ("attention_s", "mlp_s", "moe_s", "matrix_s", "step_s", "sequence_s", "request_s", "client_s")
    figures: dict[str, Any] = dict.fromkeys(names, seconds) | {"queue": count, "first_token_steps": count}
    figures["corrections"] = [{"model": "m", "weights": "bf16", "devices": ["h100-sxm"], "value": end, "rows": 1}]
    data = changed(figures, {"low": 0.0101, "high": 99.9})
    for one in data["generations"].values():
        one["floors"] = floors
    runtime = Calibration.model_validate(data).laid_over(RUNTIMES.load("vllm"))
    for one in (runtime, runtime.on("h100-sxm", "m", "bf16"), runtime.on("t4", "other", "fp8")):
        assert Runtime.model_validate(one.model_dump(mode="json"), context={"si": True}) == one


@pytest.mark.parametrize("held", [5e-324, 1e-7])
def test_a_prefix_cache_of_next_to_nothing_is_a_slip(held: float) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0.000001"):
        PrefixCache(curve=((held, 0.3), (1e18, 0.9)), source="test", as_of=date(2026, 1, 2), grade="D")


def test_a_plan_that_takes_over_has_a_front_too() -> None:
    before = plan("llama-3.1-8b", "h100-node")
    after = plan("llama-3.1-8b", "h100-node", previous=before, pareto=2)
    assert after.pareto is not None
    assert after.transition is not None
    assert not verify_plan(after)[0]


def test_a_device_that_no_system_holds_is_told_so(run: Any) -> None:
    code, _, err = run("plan", "llama-3.1-8b", "mlu370-x8")
    assert code == 2 and "is a device, and no system of the catalogue holds it" in err and "planner init hardware" in err


def test_a_reader_that_goes_away_does_not_turn_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """``planner verify broken.json | head -1`` fails as ``planner verify broken.json`` does."""

    class Closed:
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(ReaderGone) as gone, verdict(4):
        pass
    assert gone.value.exit_code == 4


def test_the_order_in_which_pools_are_written_changes_nothing() -> None:
    one, other = (
        plan("llama-3.1-70b", text) for text in ("prefill=h800-node:2,decode=h20-node:2", "decode=h20-node:2,prefill=h800-node:2")
    )
    assert one.model_dump() == other.model_dump() and not verify_plan(other, "plan")[0]
