"""What a sweep can vary: the options of ``planner plan``, each with the form of its values and its column of results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WrapValidator

from planner.quantities import Dimension, parse_quantity

NONE = "none"
"""The value that leaves an option out."""

Scalar = str | int | float | bool | None
"""What a cell of the results holds."""


def _quantity(dimension: Dimension, low: float, high: float, bare_unit: str | None = None) -> Any:
    """A number, or text with a unit, from ``low`` to ``high`` in SI."""

    def read(value: object) -> float:
        number = parse_quantity(value, dimension, bare_unit=bare_unit)
        if not low <= number <= high:
            raise ValueError(f"{value!r} is not from {low:g} to {high:.9g} {dimension}")
        return number

    return Annotated[float, BeforeValidator(read, json_schema_input_type=float | str)]


def _several(value: object) -> object:
    """``"bf16,fp8"`` or a list as a tuple."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("expected text or a list of texts")
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() if isinstance(part, str) else part for part in parts)


def _rules(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        raise ValueError("expected text or a list of texts")
    return (value,) if isinstance(value, str) else value


def _alone(value: object) -> object:
    if not isinstance(value, int | list | tuple) or isinstance(value, bool):
        raise ValueError("expected a whole number or a list of them")
    return (value,) if isinstance(value, int) else value


_Name = Annotated[str, Field(min_length=1, max_length=512, strict=True)]
_Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^,\s][^,]*$", strict=True)]
_Words = Annotated[tuple[_Word, ...], Field(min_length=1, max_length=16), BeforeValidator(_several)]
_Rules = Annotated[tuple[_Name, ...], Field(max_length=64), BeforeValidator(_rules)]
_Count = Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
_Share = Annotated[float, Field(gt=0, le=1, strict=True)]
_Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False, strict=True)]
_Tokens = _quantity("tokens", 1, 16_777_216)
_Time = _quantity("s", 1e-12, 1e9, "ms")


def _day(value: object) -> str:
    """A date of TOML, or text such as ``2026-11-22``, as text."""
    text = value.isoformat() if type(value) is date else value
    try:
        return date.fromisoformat(text if isinstance(text, str) and len(text) == 10 else "").isoformat()
    except ValueError:
        raise ValueError(f"{str(value)[:32]!r} is no day; write it as 2026-11-22") from None


_Day = Annotated[str, BeforeValidator(_day, json_schema_input_type=str)]


def _or_word(form: Any, word: str, meaning: object) -> Any:
    """A form, or one word in its place."""

    def read(value: object, handler: Any) -> Any:
        return meaning if value == word else handler(value)

    return Annotated[form, WrapValidator(read, json_schema_input_type=Literal[word] | form)]


def _numbers(most: int) -> Any:
    one = Annotated[int, Field(ge=0, le=most, strict=True)]
    return Annotated[tuple[one, ...], Field(min_length=1, max_length=16), BeforeValidator(_alone)]


def _plain(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [",".join(str(part) for part in value)]
    return [repr(value).removesuffix(".0") if isinstance(value, float) else str(value)]


def _seconds(value: Any) -> list[str]:
    return [f"{value!r}s"]


def _each(value: Any) -> list[str]:
    return list(value)


@dataclass(frozen=True)
class Axis:
    """One option. ``words``: a value as the command line takes it, one word for each time that the option is given."""

    name: str
    form: Any
    about: str
    column: str = ""
    type: Literal["text", "whole", "number", "truth"] = "text"
    words: Callable[[Any], list[str]] = _plain

    @property
    def key(self) -> str:
        """The name of its column."""
        return self.column or self.name

    @property
    def option(self) -> str:
        """The option of ``planner plan``."""
        return f"--{self.name.replace('_', '-')}"

    def cell(self, value: Any) -> Scalar:
        """A value in the results."""
        if isinstance(value, tuple):
            return ("; " if self.words is _each else ",").join(str(part) for part in value) or None
        found: Scalar = value
        return found


AXES = {
    axis.name: axis
    for axis in (
        Axis("model", _Name, "a model of the catalogue, a config.json, or a folder written as ./folder"),
        Axis("hardware", _Name, "NAME, NAME:N or prefill=NAME:N,decode=NAME:M; a .toml file works as a name"),
        Axis("workload", _Name, "a workload of the catalogue or a .toml file; interactive if left out"),
        Axis("isl", _Tokens, "input tokens, in place of the workload's: 4096, 128k", type="number"),
        Axis("osl", _Tokens, "output tokens, in place of the workload's", type="number"),
        Axis(
            "prefix_hit",
            Annotated[float, Field(ge=0, lt=1, strict=True)],
            "share of input tokens found in cache, in place of the workload's",
            type="number",
        ),
        Axis("experts", _Name, "how tokens spread over experts: uniform, zipf:0.8, or a file of loads"),
        Axis("table_use", _Name, "how reads spread over rows of lookup tables: uniform, zipf:1.0"),
        Axis("ttft", _Time, "limit on the mean time to first token: 2s", "ttft_limit_s", "number", _seconds),
        Axis("tpot", _Time, "limit on the mean time per output token: 50ms", "tpot_limit_s", "number", _seconds),
        Axis("slo_on", Literal["expected", "high"], "whether limits bind the expected value or the 90th percentile"),
        Axis("concurrency", _Count, "at most this many requests in flight", "concurrency_limit", "whole"),
        Axis("rate", _quantity("per_s", 1e-9, 1e12, "/s"), "requests to serve: 50/s", "rate_per_s", "number"),
        Axis(
            "tokens_per_day",
            Annotated[float, Field(ge=1, le=1e24, allow_inf_nan=False, strict=True)],
            "input and output tokens to serve in a day",
            type="number",
        ),
        Axis("devices", _Count, "use at most this many devices of each kind", "devices_limit", "whole"),
        Axis(
            "spare",
            Annotated[str, Field(pattern=r"^[0-9]{1,3}(:(node|unit|system|rack|pod))?$", strict=True)],
            "nodes, units or systems of each pool to keep idle: 1, 1:unit (as text)",
        ),
        Axis("objective", Literal["cost", "throughput", "latency"], "what is best; cost if left out"),
        Axis("runtime", _Name, "a runtime of the catalogue or a .toml file; generic if left out"),
        Axis("calibration", _Name, "a file of planner calibrate for the runtime"),
        Axis("weight_dtype", _Word, "dtype to store the layers' matrices in"),
        Axis("kv_dtype", _Words, "dtype of the KV cache, or several to choose from: bf16,fp8"),
        Axis("mtp", _or_word(_numbers(8), "auto", "auto"), "draft tokens a step, a list to choose from, or auto"),
        Axis("redundant_experts", _numbers(64), "expert slots of a rank for copies, or a list to choose from"),
        Axis("tiers", _Words, "memories that may be used, by kind, role or id: hbm,host"),
        Axis("price_basis", _Name, "a price basis of the catalogue or a .toml file, or rented: rent_od, tco; owned if left out"),
        Axis("price_date", _Day, "rents of this day, or the newest before it: 2026-11-22"),
        Axis("site", _Name, "electricity, PUE and life of this site"),
        Axis("utilisation", _Share, "share of hours in which the load is served", type="number"),
        Axis("allocation", Literal["miss_only", "all_input", "flops"], "who pays for prefill"),
        Axis("max_power_kw", _Positive, "limit on the stated power of all units used", "power_limit_kw", "number"),
        Axis("max_usd_per_hour", _Positive, "limit on the cost of all units used", "usd_per_hour_limit", "number"),
        Axis("set", _Rules, "figures of the hardware to replace, PATH=VALUE; a list sets several at once", words=_each),
        Axis("pin", _Rules, "keep what matches: tp=8; a list pins several at once", words=_each),
        Axis("ban", _Rules, "rule out what matches: pp=8; a list bans several at once", words=_each),
        Axis("robust", Literal["intervals"], "plan for the slow end of every interval"),
        Axis("allow_announced", Annotated[bool, Field(strict=True)], "accept parts that do not ship yet", type="truth"),
        Axis(
            "gap", Annotated[float, Field(ge=0, le=1, strict=True)], "gap at which a plan counts as proved", "gap_asked", "number"
        ),
        Axis(
            "time_limit",
            _Positive,
            "seconds after which a point ends with its best plan; results then depend on the machine",
            "time_limit_s",
            "number",
        ),
    )
}
"""By name, in the order in which they vary: the last one fastest."""

REQUIRED = ("model", "hardware")


def optional(axis: Axis) -> Any:
    """The form of a value, or ``"none"`` for an option that can be left out, which is read as ``None``."""
    if axis.name in REQUIRED:
        return axis.form
    return _or_word(axis.form, NONE, None)
