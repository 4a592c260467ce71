"""The specification of a sweep: axes that vary, cases that vary together, what is fixed and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model, model_validator

from planner.documents import explain_validation, parse_toml, read_text
from planner.errors import InputError, nearest
from planner.sweep.axes import AXES, REQUIRED, optional

MOST_POINTS = 1_000_000
MOST_VALUES = 10_000
_CONFIG = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

Values = dict[str, Any]
"""Of a point: its options by name, ``case`` among them, without those that are left out."""


def _fields(form: Any) -> dict[str, Any]:
    """A field for each axis, absent unless given."""
    return {axis.name: (form(axis), Field(default=None, description=axis.about)) for axis in AXES.values()}


class _Options(BaseModel):
    """Options by name."""

    model_config = _CONFIG

    def given(self) -> Values:
        """What was written, ``None`` for what is left out on purpose, in the order of the axes."""
        return {name: _whole(getattr(self, name)) for name in AXES if name in self.model_fields_set}


def _whole(value: Any) -> Any:
    """An empty list of settings or rules leaves the option out."""
    return None if value == () else value


def _list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("an axis is a list of values: put [ ] around it, or move it to [fixed]")
    return value


def _tuple_of(form: Any) -> Any:
    return tuple[form, ...]


_LIST = BeforeValidator(_list)
_Fixed: Any = create_model("Fixed", __base__=_Options, **_fields(optional))
_Axes: Any = create_model(
    "Grid",
    __base__=_Options,
    **_fields(lambda axis: Annotated[_tuple_of(optional(axis)), Field(min_length=1, max_length=MOST_VALUES), _LIST]),
)
_Exclude: Any = create_model(
    "Exclude",
    __base__=_Options,
    case=(Any, Field(default=None, description="the name of a case, or several")),
    **_fields(lambda axis: Any),
)


class _Case(_Fixed):  # type: ignore[misc]
    """Options that change together: one value of the axis ``case``."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s]([^\n\t]*[^\s])?$", strict=True)]


class Spec(BaseModel):
    """``[grid]`` holds the axes, each a list of values; every combination is a point. ``[fixed]`` holds for all of them. Each
    ``[[case]]`` is a named set of options, and an axis too. ``[[exclude]]`` takes out the points that match all it names."""

    model_config = _CONFIG

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(max_length=256)] = ""
    max_points: Annotated[int, Field(ge=1, le=MOST_POINTS, strict=True)] = 10_000
    """More combinations than this are taken for a slip."""
    fixed: _Fixed = _Fixed()
    grid: _Axes = _Axes()
    case: Annotated[tuple[_Case, ...], Field(max_length=MOST_VALUES)] = ()
    exclude: Annotated[tuple[_Exclude, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _said_once(self) -> Spec:
        cases = {name for case in self.case for name in case.given()}
        places = {"fixed": set(self.fixed.given()), "grid": set(self.grid.given()), "case": cases}
        for name in AXES:
            found = [place for place, names in places.items() if name in names]
            if len(found) > 1:
                raise ValueError(f"{name} is given in {' and in '.join(found)}: keep one")
        for name in REQUIRED:
            if not any(name in names for names in places.values()) or any(
                name in cases and name not in case.given() for case in self.case
            ):
                raise ValueError(f"{name} is missing: name it in grid, in fixed or in every case")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Spec:
        for name, values in self.axes.items():
            seen = set()
            for value in values:
                if value in seen:
                    raise ValueError(f"{'case' if name == 'case' else f'grid.{name}'}: {_text(value)} is given twice")
                seen.add(value)
        return self

    @model_validator(mode="after")
    def _not_too_many(self) -> Spec:
        count = self.combinations
        if count > self.max_points:
            sizes = " x ".join(f"{len(values)} {name}" for name, values in self.axes.items() if len(values) > 1)
            allowed = f"raise max_points (at most {MOST_POINTS:,})" if count <= MOST_POINTS else "split the sweep"
            raise ValueError(
                f"{count:,} points ({sizes}) are more than max_points, {self.max_points:,}: drop values or {allowed}"
            )
        return self

    @model_validator(mode="after")
    def _known_excludes(self) -> Spec:
        for number, rule in enumerate(self.rules):
            if not rule:
                raise ValueError(f"exclude.{number}: names nothing and would take out every point")
        return self

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Values by axis, in the order in which they vary; cases by name."""
        names = {"case": tuple(case.name for case in self.case)} if self.case else {}
        return names | {name: tuple(_whole(value) for value in values) for name, values in self.grid.given().items()}

    @property
    def combinations(self) -> int:
        """How many points there are before any is taken out."""
        return prod(len(values) for values in self.axes.values())

    @property
    def rules(self) -> tuple[dict[str, frozenset[Any]], ...]:
        """Of each ``[[exclude]]`` the values to take out by axis. ``ValueError`` where an axis has no such value."""
        cases = [case.given() for case in self.case]
        known: dict[str, tuple[Any, ...]] = {name: (value,) for name, value in self.fixed.given().items()}
        for name in dict.fromkeys(name for case in cases for name in case):
            known[name] = tuple(dict.fromkeys(case.get(name) for case in cases))
        known |= self.axes
        return tuple(_rule(number, rule, known) for number, rule in enumerate(self.exclude))

    def points(self) -> Iterator[Values]:
        """The options of each point that is not taken out: cases vary slowest, the last axis fastest."""
        axes, fixed, rules = self.axes, self.fixed.given(), self.rules
        cases = {case.name: case.given() for case in self.case}
        for combination in product(*axes.values()):
            chosen = dict(zip(axes, combination, strict=True))
            values = fixed | cases.get(chosen.get("case", ""), {}) | chosen
            if not any(all(values.get(name) in taken for name, taken in rule.items()) for rule in rules):
                yield {name: values[name] for name in ("case", *AXES) if values.get(name) is not None}


def _rule(number: int, rule: Any, known: dict[str, tuple[Any, ...]]) -> dict[str, frozenset[Any]]:
    """The values that an exclusion takes out by axis; ``known``: those that each axis has."""
    found = {}
    for name in ("case", *AXES):
        if name not in rule.model_fields_set:
            continue
        where = f"exclude.{number}.{name}"
        values = known.get(name)
        if not values:
            raise ValueError(f"{where}: {name} is not an axis of this sweep")
        given = getattr(rule, name)
        read = [given] if not isinstance(given, list) or _as_value(name, given) in values else given
        asked = [_as_value(name, value) for value in read]
        for text, value in zip(read, asked, strict=True):
            if value not in values:
                raise ValueError(f"{where}: {_text(text)} is no value of it; {nearest(_text(text), [_text(v) for v in values])}")
        found[name] = frozenset(asked)
    return found


def _as_value(name: str, given: Any) -> Any:
    """A value of an exclusion as the axis reads it; itself where it reads no such thing."""
    if name == "case":
        return given
    try:
        return _whole(_Fixed.model_validate({name: given}).given()[name])
    except ValidationError:
        return str(given)


def _text(value: Any) -> str:
    """A value in a message."""
    return "none" if value is None else (str(list(value)) if isinstance(value, tuple) else str(value))[:64]


def read_spec(path: Path) -> Spec:
    """A specification from a TOML file; ``InputError`` with file and key where it is none, or leaves no point."""
    where = str(path)
    try:
        spec = Spec.model_validate(parse_toml(read_text(path), where))
    except ValidationError as error:
        raise explain_validation(error, where) from None
    if next(spec.points(), None) is None:
        raise InputError("exclude takes out every point", where=where, mend="drop one of them")
    return spec
