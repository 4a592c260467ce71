"""What a worker does: plan some points and give back their rows. It needs the installed package and nothing else."""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from dataclasses import dataclass
from typing import Any, get_args

from planner.errors import InfeasibleError, InputError, PlannerError, StoppedError
from planner.search import Stop
from planner.sweep.parts import unpack
from planner.sweep.points import VERSIONS, Point
from planner.sweep.rows import Row, Status, row_of


@dataclass(frozen=True)
class Task:
    """Points with the parts that they name, packed, by digest; ``plans``: whether the plan files are wanted."""

    points: tuple[Point, ...]
    parts: dict[str, bytes]
    plans: bool
    versions: dict[str, str]


@dataclass(frozen=True)
class Result:
    """A point's row, and its plan file, packed, if wanted."""

    row: Row
    plan: bytes | None


class _Until(Stop):
    """Past a deadline, or when an event is set that the workers of one process share."""

    def __init__(self, deadline: float | None, halt: threading.Event | None) -> None:
        super().__init__(deadline)
        self.halt = halt

    def late(self) -> str | None:
        """Why to stop, if so."""
        self.interrupted = self.interrupted or (self.halt is not None and self.halt.is_set())
        return super().late()


def run(task: Task, halt: threading.Event | None = None) -> list[Result]:
    """The results of a task's points, in their order. ``InputError`` if the task is of another version of planner."""
    if task.versions != VERSIONS:
        there, here = (" with catalogue ".join(versions.values()) for versions in (task.versions, VERSIONS))
        raise InputError(f"a worker has planner {here}, the sweep is of {there}", mend="install the same version on every worker")
    return [_result(point, task, halt) for point in task.points]


def _result(point: Point, task: Task, halt: threading.Event | None) -> Result:
    """Whatever fails is a row, and the sweep goes on."""
    from planner.api import plan

    status: Status
    try:
        limit = point.values.get("time_limit")
        stop = _Until(None if limit is None else time.monotonic() + limit, halt)
        found = plan(**_call(point, {role: unpack(task.parts[digest]) for role, digest in point.parts.items()}), stop=stop)
        text = found.to_json().encode()
    except InfeasibleError as error:
        status, message = "infeasible", str(error)
    except StoppedError as error:
        status, message = "stopped", str(error)
    except PlannerError as error:
        status, message = "error", str(error)
    except Exception as error:
        status, message = "error", f"internal fault: {type(error).__name__}: {error}"
    else:
        row = row_of(point, "ok", plan=found, digest=hashlib.sha256(text).hexdigest())
        return Result(row, zlib.compress(text) if task.plans else None)
    return Result(row_of(point, status, message), None)


def _call(point: Point, parts: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``planner.plan``."""
    from planner.hardware.schema import RentBasis
    from planner.plans.constraints import parse_constraints
    from planner.workload.arguments import with_experts, with_tables, workload_of

    asked = {name: value for name, value in point.values.items() if name not in _ELSEWHERE}
    shape = [point.values.get(name) for name in ("isl", "osl", "prefix_hit", "ttft", "tpot")]
    workload = with_experts(workload_of(parts["workload"], *shape), parts.get("experts"))
    count, _, of = str(point.values.get("spare", "")).partition(":")
    spare = {"spare": int(count), "spare_of": _SPARE_OF.get(of, of)} if count else {}
    basis = point.values.get("price_basis")
    rented = {"price_basis": basis} if basis in get_args(RentBasis) else {}
    settings = {"settings": point.values["set"]} if "set" in point.values else {}
    return {
        **asked,
        **spare,
        **rented,
        **settings,
        "model": parts["model"],
        "hardware": parts["hardware"],
        "workload": with_tables(workload, point.values.get("table_use")),
        "runtime": parts["runtime"],
        "prices": parts["prices"],
        "site": parts.get("site"),
        "constraints": parse_constraints(point.values.get("pin", ()), point.values.get("ban", ())),
    }


_ELSEWHERE = frozenset(
    ("case", "model", "hardware", "workload", "isl", "osl", "prefix_hit", "ttft", "tpot", "experts", "table_use", "set")
    + ("runtime", "calibration", "price_basis", "site", "spare", "pin", "ban", "time_limit")
)
"""Options that reach ``planner.plan`` in another form."""
_SPARE_OF = {"": "node", "rack": "system", "pod": "system"}
