"""What a calibration says of one runtime, and how it bears on one model on one device."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.quantities import FractionFigure, PositiveFraction, SecondsFigure

_CONFIG = ConfigDict(frozen=True, extra="forbid")
_Factor = Annotated[float, Field(gt=0.01, lt=100.0, allow_inf_nan=False)]
_Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]

Evidence = Literal["measured", "sibling", "kin"]
"""``measured``: this model on this device in this runtime; ``sibling``: this runtime on a device of the same generation, or this
model in it; ``kin``: only the runtime, on other devices."""


class Generation(BaseModel):
    """Devices of one generation: their kernels start alike. ``floors`` multiplies the runtime's floors."""

    model_config = _CONFIG

    devices: _Names
    floors: _Factor


class Correction(BaseModel):
    """Measured over predicted time of one model, its weights in one dtype, on some devices; shrunk to 1 by few ``rows``."""

    model_config = _CONFIG

    model: str
    weights: str
    """What most parameters are multiplied in."""
    devices: _Names
    value: Annotated[float, Field(ge=0.1, le=10.0, allow_inf_nan=False)]
    rows: Annotated[int, Field(ge=1)]


class Spread(BaseModel):
    """The 80 % interval of measured over predicted time, from predictions of what was left out; ``rows`` of them."""

    model_config = _CONFIG

    low: Annotated[float, Field(gt=0.01, le=1.0)]
    high: Annotated[float, Field(ge=1.0, lt=100.0)]
    rows: Annotated[int, Field(ge=1)]


def refuse_partial(spread: Mapping[Evidence, Spread]) -> None:
    """``ValueError`` where an evidence has no interval."""
    for evidence in get_args(Evidence):
        if evidence not in spread:
            raise ValueError(f"holds no interval of {evidence}")


class FirstToken(BaseModel):
    """What a request under a held concurrency waits for beside its own prefill passes.

    ``request``: seconds outside the passes; ``steps``: decode steps; ``queue``: share of the prefills of all others that are
    held; ``client``: seconds for each request held.
    """

    model_config = _CONFIG

    request: SecondsFigure
    steps: FractionFigure
    queue: FractionFigure
    client: SecondsFigure


class Calibrated(BaseModel):
    """Figures that were fitted for a runtime beyond those that every runtime has."""

    model_config = _CONFIG

    calibration: str
    """Name of the calibration, and the digest of its points."""
    as_of: date
    matrix: SecondsFigure
    """Added to the floor of a block for each weight matrix beyond a plain block's."""
    routed_read: PositiveFraction
    """Of the memory's stream rate, what reads of routed experts reach."""
    cache_read: PositiveFraction
    routed_width: Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)] = 0.0
    """Inner width of an expert's part on a device at which its products reach half of ``efficiency.routed``."""
    all_reduce: PositiveFraction
    """Times over those of the collectives' equations."""
    all_to_all: PositiveFraction
    stall: PositiveFraction
    """Under a client that holds equal requests, the share of a prefill that decode waits for; the rest delays first tokens."""
    first_token: FirstToken
    generations: dict[str, Generation]
    models: _Names
    """Models that were measured in this runtime."""
    corrections: tuple[Correction, ...] = ()
    spread: dict[Evidence, Spread]
    folded: Evidence | None = None
    """The evidence of the deployment that the runtime was folded for (``Runtime.on``), and no spread is left."""

    @model_validator(mode="after")
    def _every_evidence(self) -> Calibrated:
        if self.spread:
            refuse_partial(self.spread)
        return self

    def generation_of(self, device: str) -> Generation | None:
        """The generation of a device, if any was measured."""
        return next((one for one in self.generations.values() if device in one.devices), None)

    def correction_of(self, device: str, model: str, weights: str) -> Correction | None:
        """The correction of a model on a device, if there is one."""
        what = (model, weights)
        return next((one for one in self.corrections if (one.model, one.weights) == what and device in one.devices), None)

    def evidence(self, device: str, model: str, weights: str) -> Evidence:
        """What a prediction of that model on that device rests on."""
        if self.correction_of(device, model, weights):
            return "measured"
        return "sibling" if self.generation_of(device) else "kin"
