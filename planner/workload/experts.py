"""How the tokens of a workload spread over the experts of every layer."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.architecture.popularity import Popularity
from planner.documents import parse_json, read_text
from planner.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_LAYERS = 1024
MAX_EXPERTS = 4096
MAX_CELLS = 262_144
MAX_LOAD = 1e18
GOLDEN = 0.6180339887498949
COLUMNS = ["layer", "expert", "load"]

Load = Annotated[float, Field(ge=0, le=MAX_LOAD, allow_inf_nan=False)]


class ExpertPopularity(BaseModel):
    """How tokens spread over experts.

    ``uniform``: all alike. ``zipf``: the i-th most popular gets ``i ** -exponent``; which one that is differs from layer to
    layer, by a fixed rule. ``measured``: ``loads`` [L][E] in any unit (tokens, shares), each layer for itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["uniform", "zipf", "measured"] = "uniform"
    exponent: Annotated[float, Field(ge=0, le=16, allow_inf_nan=False)] = 1.0
    loads: tuple[tuple[Load, ...], ...] = ()

    @model_validator(mode="after")
    def _matrix(self) -> ExpertPopularity:
        if (self.kind == "measured") != bool(self.loads):
            raise ValueError("loads belong to kind 'measured', which needs them")
        if not self.loads:
            return self
        experts = len(self.loads[0])
        if len(self.loads) > MAX_LAYERS or not 1 <= experts <= MAX_EXPERTS or len(self.loads) * experts > MAX_CELLS:
            raise ValueError(f"{len(self.loads)} layers of {experts} experts are more than loads may hold, or none")
        for layer, row in enumerate(self.loads):
            if len(row) != experts:
                raise ValueError(f"layer {layer} has {len(row)} experts and layer 0 has {experts}")
            if not sum(row) > 0.0:
                raise ValueError(f"layer {layer} has no load at all")
        return self

    def shares(self, layers: int, experts: int) -> NDArray[Any]:
        """Share of a layer's token-expert pairs that each expert gets, [L, E], every row adding up to one."""
        import numpy as np

        if layers < 1 or experts < 1:
            raise InputError(f"{layers} layers of {experts} experts have no popularity")
        if self.kind == "measured":
            if (len(self.loads), len(self.loads[0])) != (layers, experts):
                raise InputError(
                    f"loads of {len(self.loads)} layers x {len(self.loads[0])} experts, but the model has {layers} x {experts}",
                    mend="measure this model, or leave the loads out",
                )
            loads = np.array(self.loads)
            return np.asarray(loads / loads.sum(axis=1, keepdims=True))
        falling = Popularity(kind=self.kind, exponent=self.exponent).probabilities(experts)
        return np.asarray(falling[ranks(layers, experts)])


def ranks(layers: int, experts: int) -> NDArray[Any]:
    """Popularity rank of every expert [L, E], from 0: expert e of layer l has rank ``(e * stride + l * step) mod E``.

    The stride is coprime to E and close to the golden section of it, so neighbours are far apart in rank; likewise the step
    from layer to layer.
    """
    import numpy as np

    near = max(1, round(experts * GOLDEN))
    stride = next(near + offset for offset in range(experts + 1) if math.gcd(near + offset, experts) == 1)
    step = max(1, round(experts * GOLDEN * GOLDEN))
    return np.asarray((np.arange(experts) * stride + np.arange(layers)[:, None] * step) % experts)


def measured(loads: Sequence[Sequence[float]], where: str = "loads") -> ExpertPopularity:
    """Popularity from a load matrix [L][E]; one line says what is wrong with it."""
    from pydantic import ValidationError

    from planner.documents import explain_validation

    try:
        return ExpertPopularity.model_validate({"kind": "measured", "loads": loads})
    except ValidationError as error:
        raise explain_validation(error, where) from None


def read_popularity(path: Path) -> ExpertPopularity:
    """Popularity from a file: JSON ``[[load, …], …]`` (layers x experts), or CSV with the columns layer, expert, load.

    A CSV lists every expert of every layer once, both counted from 0.
    """
    text, where = read_text(path), str(path)
    if path.suffix.lower() != ".csv":
        matrix = parse_json(text, where)
        if not isinstance(matrix, list) or not all(isinstance(row, list) for row in matrix):
            raise InputError("is not a list of layers, each a list of loads", where=where, mend="write [[load, …], …]")
        if any(isinstance(load, bool) or not isinstance(load, (int, float)) for row in matrix for load in row):
            raise InputError("holds a load that is not a number", where=where, mend="write [[load, …], …]")
        return measured(matrix, where)
    return measured(_rows_of_csv(text, where), where)


def _rows_of_csv(text: str, where: str) -> list[list[float]]:
    lines = csv.reader(io.StringIO(text))
    found: dict[tuple[int, int], float] = {}
    try:
        header = next(lines, [])
        if [name.strip().lower() for name in header] != COLUMNS:
            raise InputError(
                "does not begin with the columns layer, expert, load", where=where, mend="write layer,expert,load first"
            )
        for number, cells in enumerate(lines, start=2):
            if not cells:
                continue
            try:
                layer, expert, load = int(cells[0]), int(cells[1]), float(cells[2])
            except (ValueError, IndexError):
                layer = -1
            if layer < 0 or len(cells) != len(COLUMNS) or not (0 <= layer < MAX_LAYERS and 0 <= expert < MAX_EXPERTS):
                raise InputError(f"line {number} is not layer,expert,load", where=where, mend="count layers and experts from 0")
            if (layer, expert) in found:
                raise InputError(f"line {number}: expert {expert} of layer {layer} is given twice", where=where, mend="keep one")
            found[layer, expert] = load
            if len(found) > MAX_CELLS:
                raise InputError(f"holds more than {MAX_CELLS} loads", where=where, mend="this does not look like the right file")
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", where=where, mend="correct the file") from None
    layers = 1 + max((layer for layer, _ in found), default=-1)
    experts = 1 + max((expert for _, expert in found), default=-1)
    if len(found) != layers * experts:
        known = found.keys()
        absent = next((layer, expert) for layer in range(layers) for expert in range(experts) if (layer, expert) not in known)
        raise InputError(
            f"lacks expert {absent[1]} of layer {absent[0]}", where=where, mend="give every expert of every layer once"
        )
    return [[found[layer, expert] for expert in range(experts)] for layer in range(layers)]
