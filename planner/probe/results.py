"""What the probe found, as data: ``planner schema probe`` is the form of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.probe.clock import Spread
from planner.probe.measure import Probed
from planner.probe.study import Row, median_error

_CONFIG = ConfigDict(frozen=True, extra="forbid")
Positive = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Value(BaseModel):
    """A measured figure in SI: the median of ``runs``, their 10th and 90th percentile."""

    model_config = _CONFIG

    value: Positive
    low: Positive
    high: Positive
    runs: Annotated[int, Field(ge=1)]


class ByCount(BaseModel):
    """A figure at so many threads, or rows of a product."""

    model_config = _CONFIG

    count: Annotated[int, Field(ge=1)]
    rate: Value


class DiskResult(BaseModel):
    """Bytes/s and reads/s by threads, seconds of one read, bytes free; ``direct``: past the page cache."""

    model_config = _CONFIG

    sequential_bytes_per_s: tuple[ByCount, ...]
    random_reads_per_s: tuple[ByCount, ...]
    latency_s: Value
    write_bytes_per_s: Value
    free_bytes: Annotated[int, Field(ge=0)]
    direct: bool


class ProductsResult(BaseModel):
    """FLOP/s of one dtype."""

    model_config = _CONFIG

    dtype: Literal["fp32", "fp64"]
    peak_flop_per_s: Value
    flop_per_s_by_rows: tuple[ByCount, ...]


class MachineResult(BaseModel):
    """The machine as measured."""

    model_config = _CONFIG

    threads: Annotated[int, Field(ge=1)]
    blas: str
    memory_read_bytes_per_s: tuple[ByCount, ...]
    memory_write_bytes_per_s: tuple[ByCount, ...]
    memory_stream_bytes_per_s: Value
    memory_latency_s: Value
    memory_usable_bytes: Annotated[int, Field(ge=0)]
    products: tuple[ProductsResult, ...]
    disk: DiskResult | None
    accelerator: str | None


class RunResult(BaseModel):
    """One configuration: measured and predicted, steps in seconds, ``error`` of tokens/s, seconds of each operator."""

    model_config = _CONFIG

    model: str
    batch: Annotated[int, Field(ge=1)]
    context: Annotated[int, Field(ge=1)]
    experts: Annotated[int, Field(ge=1)]
    experts_on_disk: Positive
    table_on_disk: bool
    dense_on_disk: bool
    measured_tokens_per_s: Positive
    predicted_tokens_per_s: Positive
    predicted_low: Positive
    predicted_high: Positive
    measured_step_s: Value
    predicted_step_s: Positive
    error: float
    misses: str
    measured_operators_s: dict[str, Positive]
    predicted_operators_s: dict[str, Positive]


class ProbeResult(BaseModel):
    """What ``planner probe`` prints as JSON."""

    model_config = _CONFIG

    profile: str
    """File of the profile, or its id where none was written."""
    machine: MachineResult | None
    """``null`` where the profile was given."""
    runs: tuple[RunResult, ...] = ()
    median_error: Positive | None = None
    fitted: dict[str, float] = {}
    notes: tuple[str, ...] = ()


def _value(found: Spread) -> Value:
    return Value(value=found.value, low=found.low, high=found.high, runs=found.runs)


def _by_count(found: Sequence[tuple[int, Spread]]) -> tuple[ByCount, ...]:
    return tuple(ByCount(count=count, rate=_value(rate)) for count, rate in found)


def machine_result(found: Probed) -> MachineResult:
    """The measurements as data."""
    disk = found.disk
    return MachineResult(
        threads=found.threads,
        blas=found.blas,
        memory_read_bytes_per_s=_by_count(found.memory.reads),
        memory_write_bytes_per_s=_by_count(found.memory.writes),
        memory_stream_bytes_per_s=_value(found.memory.streams),
        memory_latency_s=_value(found.memory.latency),
        memory_usable_bytes=found.memory.usable,
        products=tuple(
            ProductsResult.model_validate(
                {
                    "dtype": part.dtype,
                    "peak_flop_per_s": _value(part.peak),
                    "flop_per_s_by_rows": _by_count(part.by_rows),
                }
            )
            for part in found.products
        ),
        disk=None
        if disk is None
        else DiskResult(
            sequential_bytes_per_s=_by_count(disk.sequential),
            random_reads_per_s=_by_count(disk.random),
            latency_s=_value(disk.latency),
            write_bytes_per_s=_value(disk.write),
            free_bytes=disk.free,
            direct=disk.direct,
        ),
        accelerator=found.accelerator.name if found.accelerator else None,
    )


def run_result(row: Row) -> RunResult:
    """One comparison as data."""
    spec, measured, predicted = row.spec, row.measured, row.predicted
    return RunResult(
        model=spec.id,
        batch=spec.batch,
        context=spec.context,
        experts=spec.experts,
        experts_on_disk=spec.experts_on_disk,
        table_on_disk=spec.table_on_disk,
        dense_on_disk=spec.dense_on_disk,
        measured_tokens_per_s=spec.batch / measured.step.value,
        predicted_tokens_per_s=spec.batch / predicted.step,
        predicted_low=spec.batch / predicted.high,
        predicted_high=spec.batch / predicted.low,
        measured_step_s=_value(measured.step),
        predicted_step_s=predicted.step,
        error=row.error,
        misses=row.misses,
        measured_operators_s=measured.operators,
        predicted_operators_s=predicted.operators,
    )


def result_of(
    profile: str, machine: Probed | None, rows: Sequence[Row], fitted: dict[str, float], notes: Sequence[str]
) -> ProbeResult:
    """Everything as data."""
    return ProbeResult(
        profile=profile,
        machine=None if machine is None else machine_result(machine),
        runs=tuple(run_result(row) for row in rows),
        median_error=median_error(rows) if rows else None,
        fitted=fitted,
        notes=tuple(notes),
    )
