"""Reading the arguments of ``planner plan``: workload, use of experts and tables, spare hardware."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import InputError

if TYPE_CHECKING:
    from planner.workload import Workload


def workload_of(
    name: str | Workload, isl: float | None, osl: float | None, hit: float | None, ttft: float | None, tpot: float | None
) -> Workload:
    """The workload with what the command line says instead."""
    from pydantic import ValidationError

    from planner.documents import explain_validation
    from planner.workload import Lengths, Workload, load_workload

    base = load_workload(name) if isinstance(name, str) else name
    data = base.model_dump()
    shape = {"input_tokens": isl, "output_tokens": osl, "prefix_hit": hit}
    limits = {"ttft_s": ttft, "tpot_s": tpot}
    if any(value is not None for value in shape.values()):
        data["id"] = f"{base.id.removesuffix('-custom')}-custom"
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


def with_experts(workload: Workload, text: str | None) -> Workload:
    """The workload with another use of experts: ``uniform``, ``zipf:EXPONENT`` or a file of loads."""
    from planner.workload.experts import ExpertPopularity, read_popularity

    if text is None:
        return workload
    kind, _, number = text.partition(":")
    if kind == "zipf" and re.fullmatch(r"\d{1,2}(\.\d{1,6})?", number, re.ASCII) and float(number) <= 16:
        use = ExpertPopularity(kind="zipf", exponent=float(number))
    elif kind in ("zipf", "uniform"):
        if number or kind == "zipf":
            raise InputError(f"cannot read {text[:64]!r}", where="--experts", mend="write uniform, zipf:0.8 or a file of loads")
        use = ExpertPopularity()
    else:
        use = read_popularity(Path(text))
    source = f"experts given on the command line, otherwise: {workload.source}"
    name = workload.id if workload.id.endswith("-custom") else f"{workload.id}-custom"
    return workload.model_copy(update={"experts": use, "id": name, "source": source})


def with_tables(workload: Workload, text: str | None) -> Workload:
    """The workload with another use of the rows of tables: ``uniform`` or ``zipf:EXPONENT``."""
    from planner.architecture import Popularity

    if text is None:
        return workload
    match = re.fullmatch(r"uniform|zipf:(\d{1,2}(?:\.\d{1,6})?)", text, re.ASCII)
    if match is None or float(match[1] or 0.0) > 16.0:
        raise InputError(f"cannot read {text[:64]!r}", where="--table-use", mend="write uniform or zipf:1.0")
    use = Popularity(kind="zipf", exponent=float(match[1])) if match[1] else Popularity(kind="uniform")
    source = f"use of tables given on the command line, otherwise: {workload.source}"
    name = workload.id if workload.id.endswith("-custom") else f"{workload.id}-custom"
    return workload.model_copy(update={"lookups": use, "id": name, "source": source})


def spare_of(text: str | None) -> dict[str, Any]:
    """``2`` or ``1:system`` as options."""
    if text is None:
        return {}
    count, _, what = text.partition(":")
    if not count.isascii() or not count.isdigit() or len(count) > 4 or what not in ("", "node", "unit", "system", "rack", "pod"):
        raise InputError(
            f"cannot read {text[:64]!r}", where="--spare", mend="write N, N:node, N:unit or N:system (a rack or a pod)"
        )
    return {"spare": int(count), "spare_of": {"rack": "system", "pod": "system", "": "node"}.get(what, what)}
