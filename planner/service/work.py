"""What a worker does with a request: bytes to bytes. Answers equal those of the command line's ``--format json``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from planner.documents import decode, parse_json
from planner.errors import InfeasibleError, InputError, PlannerError, StoppedError
from planner.service.requests import CompareRequest, PlanRequest, Problem, hardware_of, model_of, read

if TYPE_CHECKING:
    from planner.plans import Plan
    from planner.search import Stop

JSON = "application/json"
HTML = "text/html; charset=utf-8"
FORM = "application/x-www-form-urlencoded"
REPORT = "planner explain PLAN --html FILE"


@dataclass(frozen=True)
class Job:
    """A request on its way to a worker. ``kind``: a key of ``KINDS``; ``media``: what the body is."""

    kind: str
    body: bytes = b""
    media: str = JSON
    full: bool = False


@dataclass(frozen=True)
class Answer:
    """A response: status, body and what it is."""

    status: int
    body: bytes
    media: str = JSON


def problem(status: int, error: str, message: str) -> Answer:
    """A refusal: ``error`` for programs, ``message`` for people."""
    return Answer(status, json.dumps({"error": error, "message": message}, ensure_ascii=False, indent=2).encode() + b"\n")


def answer(job: Job, stop: Stop, limit_s: float) -> Answer:
    """Do a job within so many seconds. Never raises but for faults of planner itself."""
    try:
        return KINDS[job.kind](job, stop, limit_s)
    except InfeasibleError as error:
        from planner.plans.answers import conflict

        return _document(conflict(error), 409)
    except StoppedError as error:
        return problem(504, "time_limit", f"{error}; ask for more time_limit_s, if the service allows it")
    except PlannerError as error:
        return problem(422, "input", str(error))
    except MemoryError:
        return problem(
            507, "memory", "needs more memory than a worker of this service may use; start it with more --worker-memory"
        )


def _plan(job: Job, stop: Stop, limit_s: float) -> Answer:
    from planner.api import plan

    asked = read(_json(job), PlanRequest)
    _limit(stop, asked, limit_s)
    found = plan(model_of(asked.model), hardware_of(asked.hardware), **asked.asked(), stop=stop)
    return Answer(200, found.to_json().encode())


def _compare(job: Job, stop: Stop, limit_s: float) -> Answer:
    from planner.api import compare

    asked = read(_json(job), CompareRequest)
    _limit(stop, asked, limit_s)
    models, hardware = [model_of(one) for one in asked.models], [hardware_of(one) for one in asked.hardware]
    found = compare(models, hardware, equal=asked.equal, **asked.asked(), stop=stop)
    return Answer(200, found.to_json().encode())


def _verify(job: Job, stop: Stop, limit_s: float) -> Answer:
    from planner.api import verify
    from planner.plans.answers import verification

    return _document(verification(*verify(decode(job.body, "plan"), full=job.full)))


def _report(job: Job, stop: Stop, limit_s: float) -> Answer:
    from planner.api import verify
    from planner.plans import read_plan
    from planner.report import check_extra, page, plan_report

    try:
        check_extra()
    except InputError as error:
        return problem(501, "extra", f"the service has no reports: {error.what}; {error.mend}")
    text = decode(job.body, "plan")
    if job.media == FORM:
        text = parse_qs(text, max_num_fields=4).get("plan", [""])[0]
    plan: Plan = read_plan(text, "plan")
    try:
        made = page(plan_report(plan, REPORT))
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        if not verify(plan)[0]:
            raise  # a sound plan: the fault is planner's
        raise InputError("its numbers do not follow from its inputs", where="plan", mend="see /verify") from None
    return Answer(200, made.encode(), HTML)


def _catalogue(job: Job, stop: Stop, limit_s: float) -> Answer:
    from planner.architecture import list_models
    from planner.hardware import list_hardware
    from planner.runtimes import RUNTIMES
    from planner.workload import WORKLOADS

    systems = [row for row in list_hardware(kinds=("node", "rack")) if not row.fault and row.status != "cancelled"]
    return _document(
        {
            "models": [{"id": one.id, "name": one.name} for one in list_models()],
            "hardware": [{"id": one.id, "name": one.name, "announced": one.status == "announced"} for one in systems],
            "workloads": [{"id": one.id, "name": one.name} for one in WORKLOADS],
            "runtimes": [{"id": one.id, "name": one.name} for one in RUNTIMES],
        }
    )


def _json(job: Job) -> Any:
    return parse_json(decode(job.body, "request"), "request")


def _limit(stop: Stop, asked: Problem, limit_s: float) -> None:
    stop.deadline = time.monotonic() + min(limit_s, asked.time_limit_s or limit_s)


def _document(value: Any, status: int = 200) -> Answer:
    from planner.plans.numbers import canonical, to_json

    return Answer(status, to_json(canonical(value)).encode())


KINDS: dict[str, Callable[[Job, Stop, float], Answer]] = {
    "plan": _plan,
    "compare": _compare,
    "verify": _verify,
    "report": _report,
    "catalogue": _catalogue,
}
