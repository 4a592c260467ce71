"""Calibration files: fitted figures of runtimes with their provenance. ``planner calibrate`` writes them; nothing is fitted here.

The built-in one lies in ``calibrations/builtin.toml``. A calibration is laid over the runtimes that it ``applies`` to.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from planner.documents import explain_validation, parse_toml, read_text
from planner.errors import InputError
from planner.quantities import Figure
from planner.runtimes.calibrated import Calibrated, Correction, Evidence, FirstToken, Generation, Spread, refuse_partial
from planner.runtimes.schema import RUNTIMES, Efficiencies, Floors, Runtime

_CONFIG = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)
_Seconds = Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False), AfterValidator(lambda value: _none_or(value, 1e-9))]
_Share = Annotated[float, Field(gt=1e-6, le=1.0, allow_inf_nan=False)]
_Factor = Annotated[float, Field(gt=0.01, lt=100.0, allow_inf_nan=False)]
_Count = Annotated[float, Field(ge=0.0, le=1e3, allow_inf_nan=False), AfterValidator(lambda value: _none_or(value, 1e-6))]
_Width = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1, max_length=4096)]


def _none_or(value: float, least: float) -> float:
    """What a figure of a plan may be: nothing, or ``least`` and more."""
    if 0.0 < value < least:
        raise ValueError(f"{value:g} is too little: write 0, or {least:g} or more")
    return value


class FittedRuntime(BaseModel):
    """Fitted figures of one runtime in SI units; what they mean stands at ``Floors``, ``Efficiencies`` and ``Calibrated``."""

    model_config = _CONFIG

    applies: Annotated[tuple[str, ...], Field(min_length=1)]
    """Runtimes of the catalogue that these figures are laid over."""
    rows: Annotated[int, Field(ge=1)]
    attention_s: _Seconds
    mlp_s: _Seconds
    moe_s: _Seconds
    matrix_s: _Seconds
    step_s: _Seconds
    sequence_s: _Seconds
    dense: _Share
    routed: _Share
    attention: _Share
    routed_read: _Factor
    cache_read: _Factor
    routed_width: _Width = 0.0
    all_reduce: _Factor
    all_to_all: _Factor
    stall: _Share
    request_s: _Seconds
    first_token_steps: _Count
    queue: _Count
    client_s: _Seconds
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    corrections: tuple[Correction, ...] = ()


class Calibration(BaseModel):
    """A calibration file."""

    model_config = _CONFIG

    schema_version: Literal[1] = Field(alias="schema", default=1)
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    as_of: date
    source: _Text
    """Of the points, with their licence."""
    points: _Text
    """File name of the points, and the first digits of the SHA-256 of its bytes."""
    rows: Annotated[int, Field(ge=1)]
    parameters: Annotated[int, Field(ge=1)]
    generations: dict[str, Generation]
    spread: dict[Evidence, Spread]
    runtimes: dict[str, FittedRuntime]

    @field_validator("spread")
    @classmethod
    def _every_evidence(cls, spread: dict[Evidence, Spread]) -> dict[Evidence, Spread]:
        refuse_partial(spread)
        return spread

    def laid_over(self, runtime: Runtime) -> Runtime:
        """The runtime with the figures fitted for it; itself where none were."""
        found = next((one for one in self.runtimes.values() if runtime.id in one.applies), None)
        if found is None:
            return runtime
        name = f"planner calibrate: {self.id}, {self.points}"

        def figure(value: float) -> Figure:
            return Figure(value=value, source=name, as_of=self.as_of, grade="B", note=f"fitted to {found.rows} points")

        fitted = Calibrated(
            calibration=name,
            as_of=self.as_of,
            matrix=figure(found.matrix_s),
            routed_read=figure(found.routed_read),
            cache_read=figure(found.cache_read),
            routed_width=found.routed_width,
            all_reduce=figure(found.all_reduce),
            all_to_all=figure(found.all_to_all),
            stall=figure(found.stall),
            first_token=FirstToken(
                request=figure(found.request_s),
                steps=figure(found.first_token_steps),
                queue=figure(found.queue),
                client=figure(found.client_s),
            ),
            generations=self.generations,
            models=found.models,
            corrections=found.corrections,
            spread=self.spread,
        )
        floors = Floors(**{key: figure(getattr(found, f"{key}_s")) for key in Floors.model_fields})
        efficiency = Efficiencies(**{key: figure(getattr(found, key)) for key in Efficiencies.model_fields})
        return runtime.model_copy(update={"floors": floors, "efficiency": efficiency, "calibrated": fitted})


BUILTIN = Path(__file__).parent / "calibrations" / "builtin.toml"


def load_calibration(path: Path = BUILTIN) -> Calibration:
    """A calibration file; ``InputError`` where it is none."""
    data: dict[str, Any] = parse_toml(read_text(path), str(path))
    try:
        return Calibration.model_validate(data)
    except ValidationError as error:
        raise explain_validation(error, str(path)) from None


@cache
def _builtin() -> Calibration | None:
    return load_calibration() if BUILTIN.exists() else None


def load_runtime(name: str, calibration: Path | None = None) -> Runtime:
    """A runtime of the catalogue, or a ``.toml`` file, as the built-in calibration or another one has it.

    A file's own runtime is taken as it is written unless a calibration is named.
    """
    runtime = RUNTIMES.load(name)
    if calibration is not None:
        return load_calibration(calibration).laid_over(runtime)
    known = _builtin() if name in RUNTIMES.ids else None
    return known.laid_over(runtime) if known else runtime


def calibrated_runtime(runtime: str | Runtime, calibration: Path | None = None) -> Runtime:
    """A runtime by name, file or itself, under a calibration if one is named, which must have figures of it."""
    if calibration is None:
        return load_runtime(runtime) if isinstance(runtime, str) else runtime
    base, found = RUNTIMES.load(runtime) if isinstance(runtime, str) else runtime, load_calibration(calibration)
    known = sorted({name for one in found.runtimes.values() for name in one.applies})
    if base.id not in known:
        what = f"holds no figures of the runtime {base.id}"
        raise InputError(
            what, where=str(calibration), mend=f"choose --runtime {known[0] if len(known) == 1 else ' or '.join(known)}"
        )
    return found.laid_over(base)
