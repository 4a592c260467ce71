"""Units, the figure with its evidence, and the printed float."""

from __future__ import annotations

import json
import math
from datetime import date
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from planner.quantities import PLAUSIBLE, UNITS, Dimension, Figure, figure_of, format_quantity, parse_quantity, round12

EVERY_UNIT = [(dimension, unit) for dimension, units in UNITS.items() for unit in units]
finite = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(min_value=-1e280, max_value=1e280, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        # SI prefixes are powers of ten, binary ones powers of two; a bit is an eighth of a byte
        ("3.35 TB/s", "bytes_per_s", 3_350_000_000_000.0),
        ("80 GB", "bytes", 80_000_000_000.0),
        ("80 GiB", "bytes", 85_899_345_920.0),  # 80 * 1024^3
        ("81559 MiB", "bytes", 85_520_809_984.0),  # 81559 * 1048576
        ("1 TiB", "bytes", 1_099_511_627_776.0),
        ("400 Gbit/s", "bytes_per_s", 50_000_000_000.0),
        ("64 kB", "bytes", 64_000.0),
        ("989 TFLOP/s", "flop_per_s", 989e12),
        ("1979 TOP/s", "flop_per_s", 1979e12),
        ("2 PFLOP/s", "flop_per_s", 2e15),
        ("35 us", "s", 35e-6),
        ("35 µs", "s", 35e-6),
        ("2 min", "s", 120.0),
        ("1.5h", "s", 5400.0),
        ("10.2 kW", "w", 10_200.0),
        ("265 kUSD", "usd", 265_000.0),
        ("3.1 MUSD", "usd", 3_100_000.0),
        ("0.085 USD/kWh", "usd_per_kwh", 0.085),
        ("50/s", "per_s", 50.0),
        ("120 /min", "per_s", 2.0),
        ("7200 /h", "per_s", 2.0),
        ("8 MIOPS", "per_s", 8e6),
        ("12.5 %", "fraction", 0.125),
        ("0.4", "fraction", 0.4),
        ("128k", "tokens", 128_000.0),
        ("128Ki", "tokens", 131_072.0),
        ("1,024 GB", "bytes", 1.024e12),
        ("1_000 tokens", "tokens", 1000.0),
        (".5 GB", "bytes", 5e8),
        ("1e3 GB", "bytes", 1e12),
        ("-3 ms", "s", -0.003),
        ("5 years", "years", 5.0),
        (7, "count", 7.0),
    ],
)
def test_units_by_hand(text: object, dimension: Dimension, expected: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(expected, rel=1e-15)


def test_every_dimension_has_a_base_unit_of_one() -> None:
    assert set(UNITS) == set(get_args(Dimension))
    for dimension in UNITS:
        assert parse_quantity(format_quantity(1.0, dimension), dimension) == 1.0  # type: ignore[arg-type]


@given(st.sampled_from(EVERY_UNIT), moderate)
@example(("bytes", "GiB"), 0.1)
@example(("s", "µs"), 5e-324)
def test_law_6_every_unit_string_goes_to_a_float_and_back(case: tuple[Any, str], number: float) -> None:
    dimension, unit = case
    value = parse_quantity(f"{number!r} {unit}", dimension)
    assert value == number * UNITS[dimension][unit]
    again = parse_quantity(format_quantity(value, dimension), dimension)
    assert again == value and math.copysign(1, again) == math.copysign(1, value)


@given(st.sampled_from(sorted(UNITS)), finite)
def test_law_6_format_is_exact_for_every_finite_float(dimension: Any, value: float) -> None:
    assert parse_quantity(format_quantity(value, dimension), dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "message"),
    [
        ("80", "bytes", "no unit"),
        (80, "bytes", "no unit"),
        ("80 gb", "bytes", "unknown unit 'gb'"),
        ("80 Gb", "bytes", "unknown unit"),
        ("80 GB/s", "bytes", "unknown unit"),
        ("3,35 TB/s", "bytes_per_s", "not a quantity"),  # a decimal comma must not become 335
        ("1,5 GB", "bytes", "not a quantity"),
        ("12,3456 GB", "bytes", "not a quantity"),
        ("1,,000 GB", "bytes", "not a quantity"),
        ("1.2.3 GB", "bytes", "not a quantity"),
        ("GB", "bytes", "not a quantity"),
        ("", "fraction", "not a quantity"),
        ("nan", "fraction", "not a quantity"),
        ("1e999", "fraction", "not finite"),
        ("1e308 EB", "bytes", "not finite"),
        (float("inf"), "count", "not finite"),
        (float("nan"), "count", "not finite"),
        (10**400, "count", "too large"),
        (True, "count", "expected a quantity"),
        (None, "s", "expected a quantity"),
        (["1 s"], "s", "expected a quantity"),
        ("1" * 65, "count", "at most 64"),
        ("١ GB", "bytes", "not a quantity"),
    ],
)
def test_bad_quantities_are_refused_in_one_line(text: object, dimension: Dimension, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_quantity(text, dimension)
    assert "\n" not in str(caught.value)


def test_bare_numbers_take_the_unit_they_are_given() -> None:
    assert parse_quantity("50", "s", bare_unit="ms") == pytest.approx(0.05)
    assert parse_quantity(50, "s", bare_unit="ms") == pytest.approx(0.05)
    assert parse_quantity("50 s", "s", bare_unit="ms") == 50.0


@given(st.text(max_size=80) | st.integers() | finite | st.none(), st.sampled_from(sorted(UNITS)))
def test_any_text_is_a_finite_number_or_a_value_error(text: object, dimension: Any) -> None:
    try:
        assert math.isfinite(parse_quantity(text, dimension))
    except ValueError as error:
        assert "\n" not in str(error).replace(repr(text), "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1 / 3, 0.333333333333), (123456789012345.0, 123456789012000.0), (0.1 + 0.2, 0.3), (-0.0, 0.0), (5e-324, 5e-324)],
)
def test_printed_floats_have_twelve_digits(value: float, expected: float) -> None:
    assert round12(value) == expected
    assert "-0" not in json.dumps(round12(-0.0))


@given(finite)
def test_rounding_is_idempotent_and_close(value: float) -> None:
    once = round12(value) if abs(value) < 1e308 else 0.0
    assert round12(once) == once
    assert abs(once - value) <= 5.1e-12 * abs(value) or abs(value) >= 1e308 or abs(value) < 1e-300


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_infinity_is_printed(value: float) -> None:
    with pytest.raises(ValueError, match="not printable"):
        round12(value)


# --- figures ----------------------------------------------------------------------------------------------------


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: figure_of("bytes")
    delay: figure_of("s", exclusive=False) = Figure(value=0.0, source="none", grade="A")


EVIDENCE = {"source": "a sheet", "grade": "B", "as_of": date(2026, 1, 2)}


def test_a_figure_is_read_in_units_and_embedded_in_si() -> None:
    part = Part.model_validate({"size": {"value": "2 GiB", "low": "1 GB", "high": "3 GB", **EVIDENCE}})
    assert (part.size.value, part.size.lowest, part.size.highest) == (2.0 * 2**30, 1e9, 3e9)
    dumped = json.loads(json.dumps(part.model_dump(mode="json")))
    assert Part.model_validate(dumped, context={"si": True}) == part
    with pytest.raises(ValidationError, match="no unit"):
        Part.model_validate(dumped)


@given(
    st.floats(1.0, 1e18),
    st.none() | st.floats(0.0, 1.0),
    st.none() | st.floats(1.0, 1e6),
    st.sampled_from("ABCD"),
    st.text(max_size=5),
)
def test_law_6_figures_round_trip_through_si(value: float, down: float | None, up: float | None, grade: Any, note: str) -> None:
    low = None if down is None else max(value * down, 1.0)
    high = None if up is None else min(value * up, 1e18)
    part = Part(size=Figure(value=value, low=low, high=high, source="s", grade=grade, note=note))
    assert Part.model_validate(json.loads(part.model_dump_json()), context={"si": True}) == part
    assert part.size.lowest <= part.size.value <= part.size.highest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": "0 GB"}, "must be above 0"),
        ({"value": "-1 GB"}, "must be above 0"),
        ({"low": "2 GB"}, "low .* is above value"),
        ({"high": "0.5 GB"}, "high .* is below value"),
        ({"source": "  "}, "needs a source"),
        ({"grade": "E"}, "'A', 'B', 'C' or 'D'"),
        ({"sauce": "x"}, "Extra inputs"),
        ({"value": None}, "valid number"),
        ({"value": 10**400}, "value: .*too large"),
        ({"value": "one GB"}, "value: .*not a quantity"),
    ],
)
def test_bad_figures_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Part.model_validate({"size": {"value": "1 GB", **EVIDENCE, **changes}})


@pytest.mark.parametrize("dimension", sorted(PLAUSIBLE))
def test_figures_outside_what_anything_has_are_refused(dimension: Any) -> None:
    class Thing(BaseModel):
        figure: figure_of(dimension)  # type: ignore[valid-type]

    low, high = PLAUSIBLE[dimension]
    for value, word in ((low * 0.99, "too little"), (1e-300, "too little"), (high * 1.01, "too much"), (1e300, "too much")):
        with pytest.raises(ValidationError, match=f"value: .* is {word}"):
            Thing.model_validate({"figure": {"value": format_quantity(value, dimension), **EVIDENCE}})
    for value in (low, high):
        assert Thing.model_validate({"figure": {"value": format_quantity(value, dimension), **EVIDENCE}}).figure.value == value
    unknown = Thing.model_validate({"figure": {"unknown": "nobody says", "as_of": date(2026, 1, 2)}})
    assert Thing.model_validate(json.loads(unknown.model_dump_json()), context={"si": True}) == unknown


def test_a_figure_without_evidence_is_refused() -> None:
    with pytest.raises(ValidationError, match="source"):
        Part.model_validate({"size": {"value": "1 GB", "grade": "A"}})
    with pytest.raises(ValidationError, match="a figure is a table"):
        Part.model_validate({"size": "1 GB"})
    with pytest.raises(ValidationError, match="finite"):
        Part.model_validate({"size": {"value": float("nan"), **EVIDENCE}}, context={"si": True})
    with pytest.raises(ValidationError, match="value"):
        Part.model_validate({"size": {"value": 10**400, **EVIDENCE}}, context={"si": True})
