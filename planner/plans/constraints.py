"""Pins and bans: what the user fixes or rules out, each with a name that a conflict can cite.

A constraint is ``AXIS=V[,V…]``, ``AXIS<=V`` or ``AXIS>=V``, with ``prefill.`` or ``decode.`` before the axis for one pool of a
disaggregated deployment (which such a pin asks for), or ``ITEM@MEMORY[,MEMORY…]`` for where an item lies. A pin keeps what
matches, a ban keeps the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.errors import InputError, nearest
from planner.footprint import Shapes

SHAPE_AXES = ("tp", "pp", "ep", "attention_dp", "context_parallel", "instance_devices")
RANGE_AXES = ("batch_per_rank", "units")
OTHER_AXES = ("prefill_tokens_per_rank", "devices", "serving", "kv_dtype", "mtp")
AXES = (*SHAPE_AXES, *RANGE_AXES, *OTHER_AXES)
WORDS = {"serving": ("aggregated", "disaggregated")}
MEANINGLESS = {"prefill.batch_per_rank": "decode", "decode.prefill_tokens_per_rank": "prefill"}
_AXIS = re.compile(r"(?:(prefill|decode)\.)?([a-z_]+)(<=|>=|=)([A-Za-z0-9_,.-]{1,400})", re.ASCII)
_ITEM = re.compile(r"([A-Za-z][A-Za-z0-9 :+_-]{0,63})@([A-Za-z0-9_,.-]{1,400})", re.ASCII)
MOST, MOST_NAME = 256, 120
"""Constraints of one plan, and characters of a name."""


class Constraint(BaseModel):
    """One pin or ban, as written, with its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
    sort: Literal["pin", "ban"]
    rule: Annotated[str, Field(min_length=1, max_length=512)]

    @model_validator(mode="after")
    def _readable(self) -> Constraint:
        axis = _AXIS.fullmatch(self.rule)
        if axis is None and _ITEM.fullmatch(self.rule) is None:
            raise ValueError(f"cannot read {self.rule[:64]!r}: write AXIS=VALUE, AXIS<=VALUE, AXIS>=VALUE or ITEM@MEMORY")
        if axis is None:
            return self
        pool, name, sign, values = axis.groups()
        if name not in AXES:
            raise ValueError(f"unknown axis {name[:64]!r} ({nearest(name[:64], list(AXES))})")
        if name in ("serving", "kv_dtype"):
            wrong = [v for v in values.split(",") if name in WORDS and v not in WORDS[name]]
            if sign != "=" or pool or wrong:
                raise ValueError(f"{name}: write {name}={'|'.join(WORDS.get(name, ('NAME',)))}")
            return self
        if not all(re.fullmatch(r"\d{1,9}", value) for value in values.split(",")) or (sign != "=" and "," in values):
            raise ValueError(f"{name}: expected whole numbers, got {values[:64]!r}")
        if pool and name in ("units", "mtp"):
            raise ValueError(f"{name}: holds for the whole deployment, not for one pool")
        if f"{pool}.{name}" in MEANINGLESS:
            raise ValueError(f"{name}: a {pool} pool does not {MEANINGLESS[f'{pool}.{name}']}")
        if not pool and name == "devices":
            raise ValueError("devices: say of which pool, as prefill.devices=16")
        if name in RANGE_AXES and self.sort == "ban":
            raise ValueError(f"{name}: pin a range instead, as {name}<=64")
        if name in RANGE_AXES and "," in values:
            raise ValueError(f"{name}: one number or a range")
        return self

    @property
    def axis(self) -> tuple[str | None, str, str, tuple[str, ...]] | None:
        """``(pool, axis, sign, values)``, or ``None`` for where an item lies."""
        match = _AXIS.fullmatch(self.rule)
        return (match[1], match[2], match[3], tuple(match[4].split(","))) if match else None

    @property
    def place(self) -> tuple[str, tuple[str, ...]] | None:
        """``(item, memories)``, or ``None`` for an axis."""
        match = _ITEM.fullmatch(self.rule)
        return (match[1], tuple(match[2].split(","))) if match and not self.axis else None

    def keeps(self, values: Any) -> Any:
        """Whether each number (or word) satisfies the constraint; an axis only."""
        assert self.axis is not None
        _, _, sign, wanted = self.axis
        if isinstance(values, str):
            good: Any = values in wanted
        elif sign == "=":
            good = np.isin(np.asarray(values), [int(w) for w in wanted])
        elif sign == "<=":
            good = np.asarray(values) <= int(wanted[0])
        else:
            good = np.asarray(values) >= int(wanted[0])
        return good if self.sort == "pin" else (not good if isinstance(good, bool) else ~good)


def on_axis(constraints: Iterable[Constraint], name: str, phase: str | None = None) -> Iterator[Constraint]:
    """Constraints on an axis that hold for the pool of a phase (those without a pool hold for every pool)."""
    for constraint in constraints:
        if constraint.axis and constraint.axis[1] == name and constraint.axis[0] in (None, phase):
            yield constraint


def kept(constraints: Iterable[Constraint], name: str, values: Iterable[Any], phase: str | None = None) -> list[Any]:
    """Those of the values that every constraint on the axis keeps."""
    rules = list(on_axis(constraints, name, phase))
    return [value for value in values if all(bool(rule.keeps(value)) for rule in rules)]


def limits(constraints: Iterable[Constraint], name: str, low: int, high: int, phase: str | None = None) -> tuple[int, int]:
    """The range of an axis within ``low..high`` (empty where the first exceeds the second)."""
    for constraint in on_axis(constraints, name, phase):
        assert constraint.axis is not None
        _, _, sign, values = constraint.axis
        if sign in ("=", ">="):
            low = max(low, int(values[0]))
        if sign in ("=", "<="):
            high = min(high, int(values[0]))
    return low, high


def shape_filter(constraints: Iterable[Constraint], shapes: Shapes, phase: str | None) -> list[tuple[str, NDArray[np.bool_]]]:
    """For each constraint on the shape of an instance its name and the rows it keeps."""
    columns = {
        "tp": shapes.tp,
        "pp": np.full_like(shapes.tp, float(shapes.pp)),
        "ep": shapes.ep,
        "attention_dp": shapes.dp,
        "context_parallel": shapes.cp,
        "instance_devices": shapes.devices,
    }
    rules = tuple(constraints)
    return [
        (rule.name, np.asarray(rule.keeps(columns[name].astype(int))))
        for name in SHAPE_AXES
        for rule in on_axis(rules, name, phase)
    ]


def forbidden_places(
    constraints: Iterable[Constraint],
    items: Iterable[str],
    memories: Mapping[str, tuple[str, ...]],
    elsewhere: Iterable[str] = (),
) -> frozenset[tuple[str, str]]:
    """``(item, memory id)`` that constraints rule out; ``memories``: id -> every name it goes by (id, kind, role).

    ``elsewhere``: names that memories of the other pools go by. ``InputError`` where a constraint names an item or a memory that
    this model and these machines do not have.
    """
    known_items = sorted(set(items))
    names = sorted({name for names in memories.values() for name in names}.union(elsewhere))
    found = set()
    for constraint in constraints:
        if constraint.place is None:
            continue
        item, places = constraint.place
        if item not in known_items:
            raise InputError(f"no item {item[:64]!r}", where=f"--{constraint.sort}", mend="known: " + ", ".join(known_items))
        for place in places:
            if place not in names:
                raise InputError(f"no memory {place[:64]!r}", where=f"--{constraint.sort}", mend="known: " + ", ".join(names))
        for memory, called in memories.items():
            if bool(set(called) & set(places)) == (constraint.sort == "ban"):
                found.add((item, memory))
    return frozenset(found)


def homeless(items: Iterable[str], memories: Iterable[str], forbidden: frozenset[tuple[str, str]]) -> bool:
    """Whether some item may lie in none of the memories."""
    places = tuple(memories)
    return any(all((item, memory) in forbidden for memory in places) for item in items)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    class Row(BaseModel):
        """One table of the file."""

        model_config = ConfigDict(extra="forbid")

        name: str | None = None
        pin: str | None = None
        ban: str | None = None

        @model_validator(mode="after")
        def _one(self) -> _File.Row:
            if (self.pin is None) == (self.ban is None):
                raise ValueError("give either pin or ban")
            return self

    constraint: Annotated[list[Row], Field(max_length=MOST)]


def parse_constraints(pins: Iterable[str], bans: Iterable[str], file: str | None = None) -> tuple[Constraint, ...]:
    """Constraints from the command line and from a TOML file of ``[[constraint]]`` tables (``pin`` or ``ban``, and ``name``)."""
    from pathlib import Path

    from pydantic import ValidationError

    from planner.documents import explain_validation, parse_toml, read_text

    rows = [("pin", rule, f"--pin {rule}"[:MOST_NAME]) for rule in pins]
    rows += [("ban", rule, f"--ban {rule}"[:MOST_NAME]) for rule in bans]
    if file is not None:
        try:
            read = _File.model_validate(parse_toml(read_text(Path(file)), file))
        except ValidationError as error:
            raise explain_validation(error, file) from None
        for row in read.constraint:
            sort = "pin" if row.pin is not None else "ban"
            rule = str(row.pin if row.pin is not None else row.ban)
            rows.append((sort, rule, f"{sort} {rule}"[:MOST_NAME] if row.name is None else row.name))
    found = []
    for sort, rule, name in rows:
        try:
            found.append(Constraint.model_validate({"name": name, "sort": sort, "rule": rule}))
        except ValidationError as error:
            raise explain_validation(error, name[:MOST_NAME] or str(file)) from None
    if len({constraint.name for constraint in found}) != len(found):
        raise InputError("two constraints have one name", where=file or "--pin/--ban", mend="rename or drop one")
    return tuple(found)
