"""A workload with what was asked for in place of its own: lengths, limits, use of experts and tables."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from planner.architecture.popularity import Popularity
from planner.documents import explain_validation
from planner.errors import InputError
from planner.workload.experts import ExpertPopularity, read_popularity
from planner.workload.schema import Lengths, Workload, load_workload


def workload_of(
    name: str | Workload, isl: float | None, osl: float | None, hit: float | None, ttft: float | None, tpot: float | None
) -> Workload:
    """The workload with what the command line says instead."""
    base = load_workload(name) if isinstance(name, str) else name
    data = base.model_dump()
    shape = {"input_tokens": isl, "output_tokens": osl, "prefix_hit": hit}
    limits = {"ttft_s": ttft, "tpot_s": tpot}
    if any(value is not None for value in shape.values()):
        data["id"] = _custom(base)
        data["source"] = f"given on the command line, otherwise: {base.source}"
    if hit is not None:
        data["prefix_cache"] = None
    try:
        for key, value in shape.items():
            if value is not None:
                data[key] = value if key == "prefix_hit" else Lengths(mean=value)
        data |= {key: value for key, value in limits.items() if value is not None}
        data["schema"] = data.pop("schema_version")
        return Workload.model_validate(data)
    except ValidationError as error:
        raise explain_validation(error, "workload options") from None


def use_of_experts(text: str) -> ExpertPopularity:
    """``uniform``, ``zipf:EXPONENT`` or a file of loads."""
    kind, _, number = text.partition(":")
    if kind == "zipf" and re.fullmatch(r"\d{1,2}(\.\d{1,6})?", number, re.ASCII) and float(number) <= 16:
        return ExpertPopularity(kind="zipf", exponent=float(number))
    if kind in ("zipf", "uniform"):
        if number or kind == "zipf":
            raise InputError(f"cannot read {text[:64]!r}", where="--experts", mend="write uniform, zipf:0.8 or a file of loads")
        return ExpertPopularity()
    return read_popularity(Path(text))


def with_experts(workload: Workload, asked: str | ExpertPopularity | None) -> Workload:
    """The workload with another use of experts."""
    if asked is None:
        return workload
    use = use_of_experts(asked) if isinstance(asked, str) else asked
    source = f"experts given on the command line, otherwise: {workload.source}"
    return workload.model_copy(update={"experts": use, "id": _custom(workload), "source": source})


def with_tables(workload: Workload, text: str | None) -> Workload:
    """The workload with another use of the rows of tables: ``uniform`` or ``zipf:EXPONENT``."""
    if text is None:
        return workload
    match = re.fullmatch(r"uniform|zipf:(\d{1,2}(?:\.\d{1,6})?)", text, re.ASCII)
    if match is None or float(match[1] or 0.0) > 16.0:
        raise InputError(f"cannot read {text[:64]!r}", where="--table-use", mend="write uniform or zipf:1.0")
    use = Popularity(kind="zipf", exponent=float(match[1])) if match[1] else Popularity(kind="uniform")
    source = f"use of tables given on the command line, otherwise: {workload.source}"
    return workload.model_copy(update={"lookups": use, "id": _custom(workload), "source": source})


def _custom(workload: Workload) -> str:
    return workload.id if workload.id.endswith("-custom") else f"{workload.id}-custom"
