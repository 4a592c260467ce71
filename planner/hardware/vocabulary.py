"""What every table of a profile is written in: figures with their units, names, kinds, and the evidence a figure needs."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from planner.quantities import Dimension, Figure, Grade, figure_of

if TYPE_CHECKING:
    Bytes: TypeAlias = Figure
    BytesPerSecond: TypeAlias = Figure
    FlopPerSecond: TypeAlias = Figure
    Seconds: TypeAlias = Figure
    Watts: TypeAlias = Figure
    Usd: TypeAlias = Figure
    UsdPerHour: TypeAlias = Figure
    PerSecond: TypeAlias = Figure
    Fraction: TypeAlias = Figure
else:
    Bytes = figure_of("bytes", plausible=1e6)
    BytesPerSecond = figure_of("bytes_per_s")
    FlopPerSecond = figure_of("flop_per_s")
    Seconds = figure_of("s", exclusive=False)
    Watts = figure_of("w")
    Usd = figure_of("usd")
    UsdPerHour = figure_of("usd_per_h")
    PerSecond = figure_of("per_s")
    Fraction = figure_of("fraction", plausible=1e-3)

DIMENSIONS: dict[str, Dimension] = {
    "peak": "flop_per_s",
    "usable": "bytes",
    "read": "bytes_per_s",
    "write": "bytes_per_s",
    "bandwidth": "bytes_per_s",
    "efficiency": "fraction",
    "allreduce_efficiency": "fraction",
    "alltoall_efficiency": "fraction",
    "p2p_efficiency": "fraction",
    "reverse_efficiency": "fraction",
    "both_ways": "bytes_per_s",
    "allreduce_startup": "s",
    "oneshot_startup": "s",
    "alltoall_startup": "s",
    "p2p_startup": "s",
    "startup": "s",
    "latency": "s",
    "iops": "per_s",
    "power": "w",
    "capex": "usd",
    "energy": "j_per_bit",
    "endurance": "bytes",
    "dwpd": "count",
    "warranty": "years",
    "usd_per_gb": "usd_per_gb",
    "usd_per_hour": "usd_per_h",
    "electricity": "usd_per_kwh",
    "pue": "count",
    "life": "years",
}
"""The unit of every figure in a profile, by key."""

CLASS_DEFAULT = "class default: "
"""Begins the source of a figure that is not of the part but of its class (``planner.hardware.defaults``), with its own date."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Alias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._ -]{0,63}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=120)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Origin = Literal["domestic", "western"]
Status = Literal["shipping", "announced", "cancelled"]
TierKind = Literal["hbm", "gddr", "lpddr", "ddr", "cxl", "hbf", "ssd", "hdd", "remote"]
LinkKind = Literal["pcie", "c2c", "nvlink", "ub", "hccs", "xgmi", "ualink", "ethernet", "infiniband", "nvme", "cxl"]


class Table(BaseModel):
    """A table of a profile. Each of its figures has a date, and an interval where its grade is C or D."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _interval_and_date(self) -> Table:
        for key, figure in self:
            if isinstance(figure, Figure):
                _require_evidence(key, figure.grade, figure.as_of, figure.low, figure.high)
                if DIMENSIONS[key] == "fraction" and figure.highest > 1.0:
                    raise ValueError(f"{key}: a fraction is at most 1")
        return self


def _require_evidence(key: str, grade: Grade, as_of: date | None, low: float | None, high: float | None) -> None:
    if as_of is None:
        raise ValueError(f"{key}: as_of is missing; write the date of the source")
    if grade in ("C", "D") and (low is None or high is None):
        raise ValueError(f"{key}: a figure of grade {grade} needs an interval; add low and high")
