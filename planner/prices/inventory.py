"""The inventory: which hardware may be used, how much of it, where, and what an hour of it costs."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from string import Template
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from planner.documents import explain_validation, parse_toml, read_text
from planner.hardware.installed import Memory
from planner.quantities import format_quantity, parse_quantity

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
_Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
_Usd = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
MOST_POOLS = 32
MOST_BYTES = 1e24


def _size(raw: object) -> float:
    value = parse_quantity(raw, "bytes")
    if not 0.0 < value <= MOST_BYTES:
        raise ValueError(f"{raw!r} is not above 0 and at most {MOST_BYTES:g} B")
    return value


_Bytes = Annotated[
    float,
    BeforeValidator(_size),
    PlainSerializer(lambda value: format_quantity(value, "bytes"), return_type=str),
    WithJsonSchema({"type": "string", "description": "A size with its unit, as 500 TB."}),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class Rent(_Part):
    """USD for an hour of one system, on which terms, of when."""

    usd_per_hour: _Usd
    basis: Literal["rent_od", "rent_1y", "rent_3y", "rent_spot", "tco"]
    as_of: date
    source: Annotated[str, Field(max_length=512)] = ""


class InventoryPool(_Part):
    """Systems of one kind at one place and price: rented, paid for already (``sunk``), or to be bought."""

    id: Identifier
    hardware: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    count: _Count
    quota: _Count | None = None
    region: Identifier | None = None
    price: Rent | None = None
    sunk: bool = False
    capex: _Usd | None = None
    """USD of one system; the profile's where left out."""

    @model_validator(mode="after")
    def _one_way_to_pay(self) -> InventoryPool:
        ways = [name for name, given in (("price", self.price), ("sunk", self.sunk), ("capex", self.capex)) if given]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} are ways to pay for the same systems: give one")
        if self.quota is not None and self.quota > self.count:
            raise ValueError(f"quota {self.quota} is more than the {self.count} that there are")
        return self

    @property
    def systems(self) -> int:
        """Systems that may be used."""
        return self.count if self.quota is None else self.quota

    @property
    def payment(self) -> Literal["rented", "sunk", "bought"]:
        """How the systems are paid for."""
        return "rented" if self.price is not None else "sunk" if self.sunk else "bought"


class Limit(_Part):
    """At most so many systems, so much stated power or so much memory as installed, over the pools of a region, those named or
    all."""

    region: Identifier | None = None
    pools: Annotated[tuple[Identifier, ...], Field(max_length=MOST_POOLS)] = ()
    all: bool = False
    systems: _Count | None = None
    power_kw: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None
    memory: dict[Memory, _Bytes] = {}
    """Usable bytes by kind, empty ones too: they are bought with the systems."""

    @model_validator(mode="after")
    def _something(self) -> Limit:
        if [self.region is not None, bool(self.pools), self.all].count(True) != 1:
            raise ValueError("say of what: region = …, pools = […], or all = true")
        if self.systems is None and self.power_kw is None and not self.memory:
            raise ValueError("limits nothing: give systems, power_kw or memory")
        return self

    @property
    def label(self) -> str:
        """What is limited, in words."""
        if self.all:
            return "all pools"
        return f"region {self.region}" if self.region is not None else f"pools {', '.join(self.pools)}"

    def covers(self, pool: InventoryPool) -> bool:
        """Whether the limit counts a pool."""
        return self.all or (pool.region == self.region if self.region is not None else pool.id in self.pools)


class Inventory(_Part):
    """Every pool that may be used, and the limits over several."""

    schema_version: Literal[1] = Field(alias="schema")
    id: Identifier
    as_of: date
    pool: Annotated[tuple[InventoryPool, ...], Field(min_length=1, max_length=MOST_POOLS)]
    limit: Annotated[tuple[Limit, ...], Field(max_length=MOST_POOLS)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Inventory:
        names = [pool.id for pool in self.pool]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"pool: id {name!r} is used twice")
        regions = {pool.region for pool in self.pool}
        for limit in self.limit:
            unknown = [name for name in limit.pools if name not in names]
            if unknown or (limit.region is not None and limit.region not in regions):
                raise ValueError(f"limit: {limit.label}: no pool is of {unknown[0] if unknown else limit.region!r}")
        return self


def load_inventory(path: Path) -> Inventory:
    """An inventory from a TOML file; ``InputError`` with file and key where it is none."""
    where = str(path)
    try:
        return Inventory.model_validate(parse_toml(read_text(path), where))
    except ValidationError as error:
        raise explain_validation(error, where) from None


def blank_inventory(inventory_id: str, today: date) -> str:
    """A commented inventory as TOML, which plans as it stands."""
    text = read_text(Path(__file__).parent / "blank_inventory.txt")
    return Template(text).substitute(id=inventory_id, as_of=today.isoformat())
