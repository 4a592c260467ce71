"""Quantities: unit strings to plain SI floats and back, and the figure that carries its evidence.

Inside planner every number is an SI float whose name says the unit (``bandwidth_bytes_per_s``).
``GB`` is 1e9 bytes and ``GiB`` is 2**30, never mixed. Units live only at the edges: in profiles,
workloads and on the command line.
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, model_validator

Dimension = Literal[
    "bytes",
    "bytes_per_s",
    "flop_per_s",
    "s",
    "w",
    "j_per_bit",
    "usd",
    "usd_per_kwh",
    "usd_per_kw_month",
    "usd_per_h",
    "usd_per_gb",
    "per_s",
    "fraction",
    "count",
    "tokens",
    "years",
]

_SI = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


def _table() -> dict[str, dict[str, float]]:
    prefixes = _SI | _BINARY
    data = {p + "B": f for p, f in prefixes.items()}
    return {
        "bytes": data,
        "bytes_per_s": {u + "/s": f for u, f in data.items()} | {p + "bit/s": f / 8 for p, f in _SI.items()},
        "flop_per_s": {p + w: f for p, f in _SI.items() for w in ("FLOP/s", "OP/s")},
        "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0},
        "w": {p + "W": f for p, f in _SI.items()},
        "j_per_bit": {"J/bit": 1.0, "nJ/bit": 1e-9, "pJ/bit": 1e-12, "fJ/bit": 1e-15},
        "usd": {"USD": 1.0, "kUSD": 1e3, "MUSD": 1e6, "$": 1.0},
        "usd_per_kwh": {"USD/kWh": 1.0, "$/kWh": 1.0},
        "usd_per_kw_month": {"USD/kW-month": 1.0, "$/kW-month": 1.0},
        "usd_per_h": {"USD/h": 1.0, "$/h": 1.0},
        "usd_per_gb": {f"{c}/{u}": 1e9 / data[u] for c in ("USD", "$") for u in ("GB", "TB", "GiB", "TiB")},
        "per_s": {"/s": 1.0, "k/s": 1e3, "M/s": 1e6, "/min": 1 / 60, "/h": 1 / 3600, "IOPS": 1.0, "kIOPS": 1e3, "MIOPS": 1e6},
        "fraction": {"": 1.0, "%": 0.01},
        "count": {"": 1.0, "k": 1e3, "M": 1e6},
        "tokens": {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "Ki": 1024.0, "Mi": 1048576.0, "tokens": 1.0},
        "years": {"years": 1.0, "year": 1.0, "y": 1.0},
    }


UNITS: dict[str, dict[str, float]] = _table()
_BASE_UNIT = {
    "bytes": "B",
    "bytes_per_s": "B/s",
    "flop_per_s": "FLOP/s",
    "s": "s",
    "w": "W",
    "j_per_bit": "J/bit",
    "usd": "USD",
    "usd_per_kwh": "USD/kWh",
    "usd_per_kw_month": "USD/kW-month",
    "usd_per_h": "USD/h",
    "usd_per_gb": "USD/GB",
    "per_s": "/s",
    "fraction": "",
    "count": "",
    "tokens": "tokens",
    "years": "years",
}
_QUANTITY = re.compile(
    r"^\s*([-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?)\s*([^\s\d.,_]\S*|)\s*$", re.ASCII
)


def parse_quantity(text: object, dimension: Dimension, *, bare_unit: str | None = None) -> float:
    """``"3.35 TB/s"`` -> ``3.35e12`` for dimension ``bytes_per_s``.

    A bare number is accepted for dimensionless dimensions, or read in ``bare_unit`` when given. Commas group thousands
    (``1,024``); a decimal comma is refused, not misread.
    Raises ``ValueError`` with one line that names the accepted units.
    """
    units = UNITS[dimension]
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"expected a quantity such as '1 {_example(dimension)}', got {text!r}")
    if isinstance(text, int | float):
        try:
            number, unit = float(text), ""
        except OverflowError:
            raise ValueError("the number is too large") from None
    else:
        if len(text) > 64:
            raise ValueError("a quantity has at most 64 characters")
        match = _QUANTITY.match(text)
        if not match:
            raise ValueError(f"{text!r} is not a quantity; write a number and a unit, as '1 {_example(dimension)}'")
        number, unit = float(match[1].replace("_", "").replace(",", "")), match[2]
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not finite")
    if unit == "" and "" not in units:
        if bare_unit is None:
            raise ValueError(f"{text!r} has no unit; write one of {_units(dimension)}")
        unit = bare_unit
    if unit not in units:
        raise ValueError(f"unknown unit {unit!r} in {text!r}; use one of {_units(dimension)}")
    value = number * units[unit]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value


def format_quantity(value: float, dimension: Dimension) -> str:
    """The exact text of an SI float in the dimension's base unit: ``parse_quantity`` gives it back bit for bit."""
    unit = _BASE_UNIT[dimension]
    return f"{value!r} {unit}".strip()


_READABLE: dict[str, tuple[tuple[float, str], ...]] = {
    "bytes": ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "bytes_per_s": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")),
    "flop_per_s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1.0, "FLOP/s")),
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "w": ((1e6, "MW"), (1e3, "kW"), (1.0, "W")),
    "usd": ((1e6, "MUSD"), (1e3, "kUSD"), (1.0, "USD")),
    "per_s": ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")),
    "j_per_bit": ((1e-12, "pJ/bit"),),
}


def readable(value: float, dimension: Dimension, *ends: float) -> str:
    """``"3.35 TB/s"``, with ``ends`` (low and high) ``"3.35 TB/s (3.2 to 3.4)"``: for people, in the unit that fits the value."""
    scales = _READABLE.get(dimension, ((1.0, _BASE_UNIT[dimension]),))
    scale, unit = next((pair for pair in scales if abs(value) >= pair[0] * (1 - 1e-12)), scales[-1] if value else scales[0])
    span = f" ({' to '.join(plain(end / scale) for end in ends)})" if ends and min(ends) < max(ends) else ""
    return f"{plain(value / scale)} {unit}".rstrip() + span


def plain(value: float) -> str:
    """Four digits, or whole thousands; no exponent from a ten-millionth up."""
    if abs(value) >= 999.95:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.4g}"
    text = f"{value:.4g}"
    return text if "e" not in text or abs(value) < 1e-7 else f"{value:.10f}".rstrip("0")


def plain_up(value: float) -> str:
    """Six digits of a number above 0, and never less than it: what a limit must be raised to."""
    scale = 10.0 ** (5 - math.floor(math.log10(value)))
    rounded = math.ceil(value * scale * (1.0 - 1e-12)) / scale
    return f"{rounded:,.0f}" if rounded >= 1e5 else f"{rounded:.6g}"


def _example(dimension: str) -> str:
    return {"bytes": "GB", "bytes_per_s": "TB/s", "flop_per_s": "TFLOP/s", "s": "ms", "w": "W", "usd": "USD"}.get(
        dimension, _BASE_UNIT[dimension]
    )


def _units(dimension: str) -> str:
    names = [u for u in UNITS[dimension] if u]
    return ", ".join(names[:14]) or "a bare number"


def round12(value: float) -> float:
    """The contract's printed float: rounded to 12 significant digits (shortest round-trip form when serialised)."""
    if value == 0.0:
        return 0.0
    if not math.isfinite(value):
        raise ValueError("NaN and Infinity are not printable quantities")
    return float(f"{value:.12g}")


Grade = Literal["A", "B", "C", "D"]

UNKNOWN = "unknown: "
"""Begins the source of a figure that nobody has published."""
_NO_DEFAULT = "no value stands here"
_DEFAULT = "value, low and high are a stated default, not evidence"


class Figure(BaseModel):
    """A sourced SI number with its interval.

    ``low``/``high`` are the 10th and 90th percentile of what the true value may be; absent means exact.
    ``grade``: A vendor or measured and read, B secondary, C derived or announced, D unverified.
    A figure that nobody has published is not ``known``: it holds the reason, and a default only where one is stated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float | None = None
    high: float | None = None
    source: str
    as_of: date | None = None
    grade: Grade
    note: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Figure:
        for number in (self.value, self.low, self.high):
            if number is not None and not math.isfinite(number):
                raise ValueError("a figure must be finite")
        if self.low is not None and self.low > self.value:
            raise ValueError(f"low {self.low!r} is above value {self.value!r}")
        if self.high is not None and self.high < self.value:
            raise ValueError(f"high {self.high!r} is below value {self.value!r}")
        if not self.source.strip():
            raise ValueError("a figure needs a source")
        return self

    @property
    def known(self) -> bool:
        """Whether there is evidence for the value; planning stops at a figure without."""
        return not self.source.startswith(UNKNOWN)

    @property
    def reason(self) -> str:
        """Why the figure is not known."""
        return "" if self.known else self.source.removeprefix(UNKNOWN)

    @property
    def has_default(self) -> bool:
        """Whether an unknown figure states a default that may be accepted."""
        return not self.known and self.note == _DEFAULT

    @property
    def lowest(self) -> float:
        """The low end of the interval, or the value where none is stated."""
        return self.value if self.low is None else self.low

    @property
    def highest(self) -> float:
        """The high end of the interval, or the value where none is stated."""
        return self.value if self.high is None else self.high


PLAUSIBLE: dict[str, tuple[float, float]] = {
    "bytes": (1.0, 1e18),
    "bytes_per_s": (1e3, 1e17),
    "flop_per_s": (1e6, 1e21),
    "s": (1e-12, 1e3),
    "w": (1e-3, 1e9),
    "j_per_bit": (1e-16, 1e-3),
    "usd": (1e-2, 1e12),
    "usd_per_kwh": (1e-4, 1e3),
    "usd_per_kw_month": (1e-1, 1e5),
    "usd_per_h": (1e-4, 1e7),
    "usd_per_gb": (1e-6, 1e6),
    "per_s": (1e-3, 1e12),
    "fraction": (1e-6, 1e3),
    "count": (1e-6, 1e6),
    "years": (1e-2, 1e3),
}
"""Smallest and largest SI value of a figure: far wider than any part or site, narrow enough for the solver's digits."""


def figure_of(dimension: Dimension, *, minimum: float = 0.0, exclusive: bool = True, plausible: float = 0.0) -> Any:
    """The annotated type of a profile field: a table ``{value = "3.35 TB/s", source = …}`` becomes a ``Figure`` in SI.

    ``{unknown = "why", as_of = …}`` says that nobody has published it, with ``default``, ``low`` and ``high`` if one is stated.
    Outside ``PLAUSIBLE`` (or below ``plausible``) a value can only be a slip, and would leave the solver no digits; zero passes
    where ``minimum`` admits it.
    Under the validation context ``{"si": True}`` (a plan's embedded inputs) bare numbers are SI already.
    """

    least, most = PLAUSIBLE.get(dimension, (0.0, math.inf))
    least = max(least, plausible)

    def convert(raw: object, info: ValidationInfo) -> object:
        if isinstance(raw, Figure):
            return raw
        if not isinstance(raw, dict):
            raise ValueError('a figure is a table: { value = "…", source = "…", grade = "…" }')
        data: dict[str, Any] = dict(raw)
        in_si = bool(info.context and info.context.get("si"))
        if "unknown" in data:
            data = _without_evidence(data, min(max(1.0, least), most))
            in_si = in_si or data["note"] == _NO_DEFAULT
        for key in ("value", "low", "high"):
            if data.get(key) is None:
                continue
            try:
                data[key] = float(data[key]) if in_si else parse_quantity(data[key], dimension)
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{key}: {error}") from None
            if data[key] < minimum or (exclusive and data[key] == minimum):
                raise ValueError(f"{key}: must be {'above' if exclusive else 'at least'} {minimum:g}")
            if data[key] and math.isfinite(data[key]) and not least <= data[key] <= most:
                much = "little" if data[key] < least else "much"
                raise ValueError(f"{key}: {format_quantity(data[key], dimension)} is too {much}; check the number and its unit")
        value, low, high = (data.get(key) for key in ("value", "low", "high"))
        if isinstance(value, float) and isinstance(low, float) and low > value:
            raise ValueError(f"low {raw['low']} is above value {raw.get('value', raw.get('default'))}")
        if isinstance(value, float) and isinstance(high, float) and high < value:
            raise ValueError(f"high {raw['high']} is below value {raw.get('value', raw.get('default'))}")
        return data

    return Annotated[Figure, BeforeValidator(convert)]


def _without_evidence(raw: dict[str, Any], stand_in: float) -> dict[str, Any]:
    """The fields of a figure that is not known."""
    reason = raw["unknown"]
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError("unknown: say in words why the figure is not known")
    if extra := sorted(set(raw) - {"unknown", "as_of", "default", "low", "high"}):
        raise ValueError(f"{extra[0]}: an unknown figure has only unknown, as_of, and default with low and high")
    stated = {key: raw[key] for key in ("default", "low", "high") if key in raw}
    if stated and len(stated) < 3:
        raise ValueError("a default for an unknown figure needs low and high")
    found: dict[str, Any] = {"source": UNKNOWN + reason.strip(), "grade": "D", "note": _DEFAULT if stated else _NO_DEFAULT}
    if stated:
        found |= {"value": stated["default"], "low": stated["low"], "high": stated["high"]}
    else:
        found |= {"value": stand_in, "low": stand_in, "high": stand_in}
    return found | {"as_of": raw.get("as_of")}


if TYPE_CHECKING:
    BytesFigure: TypeAlias = Figure
    SecondsFigure: TypeAlias = Figure
    FractionFigure: TypeAlias = Figure
    PositiveFraction: TypeAlias = Figure
    CountFigure: TypeAlias = Figure
    YearsFigure: TypeAlias = Figure
    UsdPerKwhFigure: TypeAlias = Figure
    UsdPerKwMonthFigure: TypeAlias = Figure
else:
    BytesFigure = figure_of("bytes", exclusive=False)
    SecondsFigure = figure_of("s", exclusive=False)
    FractionFigure = figure_of("fraction", exclusive=False)
    PositiveFraction = figure_of("fraction")
    CountFigure = figure_of("count", exclusive=False)
    YearsFigure = figure_of("years")
    UsdPerKwhFigure = figure_of("usd_per_kwh", exclusive=False)
    UsdPerKwMonthFigure = figure_of("usd_per_kw_month", exclusive=False)
