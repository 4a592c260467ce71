"""A small model to run: its sizes, what it carries, and where its tensors lie; and the planner's own graph of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from planner.architecture import Model, model_from_config
from planner.architecture.blocks import Block
from planner.architecture.families.common import chain
from planner.architecture.families.deepseek_v41 import engram_block
from planner.architecture.parts import Hashed
from planner.documents import explain_validation, parse_toml, read_text
from planner.errors import InputError
from planner.hardware.draft import identifier

MOST_BYTES = 1 << 20
MOST_RUNS = 64
FLOAT = 4
LAYOUT = "fp32"
"""Cache layout of the reference run, and the KV dtype that its runtime knows it by."""

_Small = Annotated[int, Field(strict=True, ge=1, le=256)]
_Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)]
_CONFIG = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Table(BaseModel):
    """Hashed n-gram tables as of the Engram paper: ``rows`` of each of orders x heads sub-tables, ``dim`` over all of them."""

    model_config = _CONFIG

    rows: Annotated[int, Field(strict=True, ge=16, le=2**24)]
    dim: Annotated[int, Field(strict=True, ge=16, le=8192)] = 512
    heads: Annotated[int, Field(strict=True, ge=1, le=16)] = 4
    ngrams: Annotated[tuple[Annotated[int, Field(strict=True, ge=2, le=8)], ...], Field(min_length=1, max_length=4)] = (2, 3)
    layers: Annotated[tuple[Annotated[int, Field(strict=True, ge=0, le=63)], ...], Field(min_length=1, max_length=8)] = (1,)

    @property
    def hashed(self) -> Hashed:
        """How tokens name rows."""
        return Hashed(orders=self.ngrams, heads=self.heads)

    @property
    def width(self) -> int:
        """Elements of a row."""
        return self.dim // self.hashed.rows_per_token

    @model_validator(mode="after")
    def _aligned(self) -> Table:
        size = self.width * FLOAT
        if self.dim % self.hashed.rows_per_token or not size or 4096 % size:
            raise ValueError("dim: over ngrams x heads must be a power of two from 4 to 1024, so that no row crosses a page")
        if sorted(set(self.layers)) != list(self.layers):
            raise ValueError("layers: must rise")
        return self


class Spec(BaseModel):
    """A decoder with grouped-query attention and routed experts, float32 throughout."""

    model_config = _CONFIG

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")] = "reference"
    layers: Annotated[int, Field(strict=True, ge=1, le=64)]
    hidden: Annotated[int, Field(strict=True, ge=16, le=16384)]
    heads: _Small
    kv_heads: _Small
    head_dim: _Small = 64
    inner: Annotated[int, Field(strict=True, ge=16, le=65536)]
    experts: Annotated[int, Field(strict=True, ge=1, le=1024)]
    active: Annotated[int, Field(strict=True, ge=1, le=64)]
    vocabulary: Annotated[int, Field(strict=True, ge=16, le=262144)] = 4096
    table: Table | None = None
    batch: Annotated[int, Field(strict=True, ge=1, le=256)] = 1
    context: Annotated[int, Field(strict=True, ge=2, le=65536)] = 128
    experts_on_disk: _Share = 0.0
    """Share of every layer's experts."""
    table_on_disk: StrictBool = False
    dense_on_disk: StrictBool = False
    """Attention and routers of all layers, read ahead one layer; embedding, head and what projects tables stay."""

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads: {self.heads} does not divide by kv_heads {self.kv_heads}")
        if self.active > self.experts:
            raise ValueError(f"active: {self.active} is more than experts {self.experts}")
        if self.table is None and self.table_on_disk:
            raise ValueError("table_on_disk: there is no table; add one, as table = { rows = 65536 }")
        if self.table is not None and self.table.layers[-1] >= self.layers:
            raise ValueError(f"table.layers: {self.table.layers[-1]} is not below layers {self.layers}")
        if abs(self.experts_on_disk * self.experts - self.disk_experts) > 1e-6:
            raise ValueError(f"experts_on_disk: {self.experts_on_disk:g} of {self.experts} experts is no whole number of them")
        return self

    @property
    def disk_experts(self) -> int:
        """Experts of a layer that lie on disk."""
        return round(self.experts_on_disk * self.experts)

    @property
    def expert_elements(self) -> int:
        """Gate, up and down projection of one expert."""
        return 3 * self.hidden * self.inner

    @property
    def dense_elements(self) -> int:
        """Query, key, value, output and router of one layer."""
        return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads) + self.experts * self.hidden

    @property
    def table_elements(self) -> int:
        """Elements of one layer's tables."""
        return self.table.rows * self.table.dim if self.table else 0

    @property
    def disk_bytes(self) -> int:
        """Bytes that lie on disk."""
        each = self.disk_experts * self.expert_elements + (self.dense_elements if self.dense_on_disk else 0)
        tables = len(self.table.layers) * self.table_elements if self.table and self.table_on_disk else 0
        return FLOAT * (self.layers * each + tables)

    @property
    def memory_bytes(self) -> int:
        """Bytes that lie in memory, the cache included, staging and scratch left out."""
        cache = 2 * self.batch * self.context * self.kv_heads * self.head_dim
        each = self.experts * self.expert_elements + self.dense_elements + cache
        tables = len(self.table.layers) * (self.table_elements + 2 * self.hidden * self.table.dim) if self.table else 0
        return FLOAT * (self.layers * each + 2 * self.vocabulary * self.hidden + tables) - self.disk_bytes

    @property
    def label(self) -> str:
        """What tells it from others of its id."""
        parts = [f"B{self.batch}", f"T{self.context}", f"E{self.experts}/{self.active}"]
        parts += [f"{self.experts_on_disk:.0%} of experts on disk"] if self.disk_experts else []
        if self.table:
            parts.append("table on disk" if self.table_on_disk else "table")
        parts += ["dense on disk"] if self.dense_on_disk else []
        return " ".join(parts)


_MENDS = {
    "int_type": "write a whole number, without quotes or a unit",
    "float_type": "write a number, as 0.25, without quotes or a unit",
    "bool_type": "write true or false",
    "tuple_type": "write a list, as [1]",
    "model_type": "write a table, as { rows = 65536 }",
    "dict_type": "write a table",
}


class _File(BaseModel):
    model_config = _CONFIG

    schema_version: Literal[1] = Field(alias="schema")
    model: dict[str, Any]
    sweep: dict[str, list[Any]] = {}


def read_specs(path: Path) -> tuple[Spec, ...]:
    """The model of a file, or one for each combination of the values that its ``[sweep]`` names; ``InputError`` otherwise."""
    where = str(path)
    data = parse_toml(read_text(path, max_bytes=MOST_BYTES), where)
    try:
        found = _File.model_validate(data)
        base = {"id": identifier(path.stem, but="a-z0-9.-"), **found.model}
        for key, values in found.sweep.items():
            if key not in Spec.model_fields or key == "id" or not values:
                raise InputError(
                    f"sweep.{key[:64]}: names no figure of a model, or has no values", where=where, mend="correct it"
                )
        count = 1
        for values in found.sweep.values():
            count *= len(values)
        if count > MOST_RUNS:
            raise InputError(f"sweep: makes {count} runs, more than {MOST_RUNS}", where=where, mend="name fewer values")
        return tuple(
            Spec.model_validate(base | dict(zip(found.sweep, row, strict=True))) for row in product(*found.sweep.values())
        )
    except ValidationError as error:
        said = explain_validation(error, where)
        raise InputError(said.what, where=where, mend=said.mend or _MENDS.get(error.errors()[0]["type"], "correct it")) from None


def graph_of(spec: Spec) -> Model:
    """The planner's graph: a mixtral of these sizes in float32, with a float32 layout of its cache and the tables put in."""
    config = {
        "model_type": "mixtral",
        "torch_dtype": "float32",
        "hidden_size": spec.hidden,
        "vocab_size": spec.vocabulary,
        "num_hidden_layers": spec.layers,
        "max_position_embeddings": max(spec.context, 2) * 2,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "intermediate_size": spec.inner,
        "num_local_experts": spec.experts,
        "num_experts_per_tok": spec.active,
    }
    plain = model_from_config(config, spec.id, spec.id)
    blocks = [_wide_cache(block) for block in plain.blocks]
    tables = []
    if spec.table is not None:
        rows = spec.table.rows * spec.table.hashed.rows_per_token
        tables = [
            engram_block(
                layer,
                rows,
                spec.table.hashed,
                width=spec.table.width,
                hidden=spec.hidden,
                streams=1,
                linear="fp32",
                table="fp32",
            )
            for layer in spec.table.layers
        ]
    blocks = [*blocks[:-1], *tables, blocks[-1]]
    kept = [edge for edge in plain.edges if edge.kind != "residual"]
    edges = (*chain(blocks, spec.hidden, "fp32"), *kept)
    return plain.model_copy(update={"blocks": tuple(blocks), "edges": edges})


def _wide_cache(block: Block) -> Block:
    caches = tuple(
        cache.model_copy(update={"layouts": {**cache.layouts, LAYOUT: FLOAT * (cache.elements or 0)}}) for cache in block.caches
    )
    return block.model_copy(update={"caches": caches})
