"""What can be asked of the service: names of the catalogues and objects in the body, never files."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from planner.architecture import Model, find_model, list_models
from planner.architecture.importer import model_from_config
from planner.documents import explain_validation
from planner.errors import InputError, nearest
from planner.hardware import HardwareSelection, Site
from planner.plans.constraints import Constraint, parse_constraints
from planner.plans.inputs import Options
from planner.prices import OwnedPrices
from planner.runtimes import Runtime
from planner.workload import Workload
from planner.workload.arguments import workload_of

LONGEST = 200
"""Characters of a name."""
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_POOL = rf"{_PART}(?::(?:[0-9]{{1,6}}|auto))?"
_SYSTEMS = rf"(?:{_POOL}|(?:prefill|decode)={_POOL},(?:prefill|decode)={_POOL})(?:@{_PART})?"
_MODEL = rf"{_PART}(?:/{_PART})?"
_FILES = re.compile(r"\.(toml|json|yaml|yml|csv|parquet)(?=[:,@]|$)", re.IGNORECASE)
_NOT_ASKED = ("high_ttft_s", "high_tpot_s", "headroom", "max_move_bytes", "constraints")
"""Options that follow from others, or that go with what the service has not."""

_Entry = TypeVar("_Entry", bound=BaseModel)


def _name_or_object(pattern: str, form: str, most: int = 1) -> AfterValidator:
    """A name of that pattern or an object; or up to ``most`` of them."""
    known = re.compile(pattern, re.ASCII)

    def checked(value: Any) -> Any:
        if isinstance(value, list) and 0 < len(value) <= most > 1:
            return [checked(one) for one in value]
        if isinstance(value, dict):
            return value
        if not isinstance(value, str):
            raise ValueError(f"expected a name, {form}, or an object")
        if len(value) > LONGEST or known.fullmatch(value) is None or _FILES.search(value):
            raise ValueError(
                f"{value[:48]!r} is no name of the catalogue, {form}; files are not read: put the object itself here"
            )
        return value

    return AfterValidator(checked)


def _json(pattern: str, what: str, most: int = 1) -> WithJsonSchema:
    one: list[dict[str, Any]] = [{"type": "string", "pattern": f"^{pattern}$", "maxLength": LONGEST}, {"type": "object"}]
    several = {"type": "array", "items": {"anyOf": one}, "minItems": 1, "maxItems": most}
    return WithJsonSchema({"anyOf": [*one, several] if most > 1 else one, "description": what})


_Model = Annotated[
    Any,
    _name_or_object(_MODEL, "as deepseek-v3"),
    _json(_MODEL, "A model of the catalogue, a Hugging Face config.json, or a model as `planner schema model` says"),
]
_Hardware = Annotated[
    Any,
    _name_or_object(_SYSTEMS, "as h800-node:2"),
    _json(
        _SYSTEMS,
        "NAME, NAME:N, NAME:auto or prefill=NAME:N,decode=NAME:M of the catalogue; or {system, count} with a system as plans "
        "embed it (`inputs.hardware.mixed`), or {prefill: …, decode: …} of those",
    ),
]
_Workloads = Annotated[
    Any,
    _name_or_object(_PART, "as chat", 16),
    _json(_PART, "A workload of the catalogue, or one as `planner schema workload` says; several with `robust` `workloads`", 16),
]
_Runtime = Annotated[
    Any,
    _name_or_object(_PART, "as sglang"),
    _json(_PART, "A runtime of the catalogue, or one as `planner schema runtime` says"),
]
_Prices = Annotated[
    Any,
    _name_or_object(_PART, "as owned"),
    _json(_PART, "A basis of owned prices: of the catalogue, or one as plans embed it"),
]
_Site = Annotated[Any, _name_or_object(_PART, "as cn-west-hub"), _json(_PART, "A site of the catalogue, or one as an object")]
_Object = dict[str, Any]
_Tokens = Annotated[float, Field(ge=1, le=16_777_216, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(ge=1e-12, le=1e9, allow_inf_nan=False)]
_Rules = Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=256)]


def _shown(schema: dict[str, Any]) -> None:
    for name in _NOT_ASKED:
        schema["properties"].pop(name)


class Problem(Options):
    """What is asked of every plan, as the options of ``planner plan``; times in seconds, tokens as numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_shown, use_attribute_docstrings=True)

    workload: _Workloads = "interactive"
    isl: _Tokens | None = None
    """Input tokens, in place of the workload's; so ``osl``, ``prefix_hit``, ``ttft_s`` and ``tpot_s``."""
    osl: _Tokens | None = None
    prefix_hit: Annotated[float, Field(ge=0, lt=1)] | None = None
    ttft_s: _Seconds | None = None
    tpot_s: _Seconds | None = None
    runtime: _Runtime = "generic"
    prices: _Prices = "owned"
    site: _Site | None = None
    allow_announced: bool = False
    settings: _Rules = ()
    """``ascend-950dt.memory.hbm.read=4.0 TB/s``."""
    slo_on: Literal["expected", "high"] = "expected"
    pins: _Rules = ()
    bans: _Rules = ()
    time_limit_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Stop after so long with the best plan so far; at most what the service allows."""
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=0)] = ()
    high_ttft_s: None = None
    high_tpot_s: None = None
    headroom: Annotated[float, Field(ge=1, le=1)] = 1.0
    max_move_bytes: None = None

    def asked(self) -> dict[str, Any]:
        """Arguments of ``planner.plan``, without model and hardware."""
        given = self.workload if isinstance(self.workload, list) else [self.workload]
        loads = [_entry(one, Workload, "workload") for one in given]
        shape = (self.isl, self.osl, self.prefix_hit, self.ttft_s, self.tpot_s)
        return {
            **{name: getattr(self, name) for name in Options.model_fields if name not in _NOT_ASKED},
            "workload": [workload_of(one, *shape) for one in loads],
            "runtime": _entry(self.runtime, Runtime, "runtime"),
            "prices": _entry(self.prices, OwnedPrices, "prices"),
            "site": None if self.site is None else _entry(self.site, Site, "site"),
            "allow_announced": self.allow_announced,
            "settings": self.settings,
            "slo_on": self.slo_on,
            "constraints": parse_constraints(self.pins, self.bans),
        }


class PlanRequest(Problem):
    """Plan ``model`` on ``hardware``."""

    model: _Model
    hardware: _Hardware


class CompareRequest(Problem):
    """Plan every model on every hardware (also ``NAME@RUNTIME``) and set the plans side by side."""

    models: Annotated[list[_Model], Field(min_length=1, max_length=8)]
    hardware: Annotated[list[_Hardware], Field(min_length=1, max_length=16)]
    equal: Literal["cost", "power"] | None = None


def read(data: object, kind: type[_Entry], where: str = "request") -> _Entry:
    """A value as an object of that kind; numbers of figures are SI. ``InputError`` names the first fault."""
    try:
        return kind.model_validate(data, context={"si": True})
    except ValidationError as error:
        raise explain_validation(error, where) from None


def _entry(given: str | _Object, kind: type[_Entry], where: str) -> str | _Entry:
    return given if isinstance(given, str) else read(given, kind, f"request: {where}")


def model_of(given: str | _Object) -> Model:
    """The model of the catalogue, of a config.json or as it is."""
    if isinstance(given, str):
        entry = find_model(given)
        if entry is None:
            known = [known for one in list_models() for known in (one.id, *one.aliases)]
            raise InputError(f"unknown model {given[:64]!r}", where="request: model", mend=nearest(given[:64], known))
        return entry.load()
    if "model_type" in given:
        return model_from_config(given, "request: model", str(given.get("_name_or_path") or given["model_type"])[:96])
    return read(given, Model, "request: model")


def hardware_of(given: str | _Object) -> str | HardwareSelection | dict[str, HardwareSelection]:
    """Names as they are, objects as selections."""
    if isinstance(given, str):
        return given
    if "system" in given:
        return read(given, HardwareSelection, "request: hardware")
    if set(given) != {"prefill", "decode"}:
        raise InputError(
            "is neither a system nor two pools", where="request: hardware", mend="give {system, count} or {prefill, decode}"
        )
    return {phase: read(pool, HardwareSelection, f"request: hardware.{phase}") for phase, pool in given.items()}
