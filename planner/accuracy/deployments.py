"""Published measurements as scenarios: what was deployed, under which load, and what was read off it.

``points/deployments.csv`` is the data; ``points/README.md`` says where every row comes from and what its columns mean. A row
that cannot be a scenario keeps its place with a reason of a closed list, decided by its labels alone and never by its value.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from planner.documents import explain_validation, read_text
from planner.errors import InputError

POINTS = Path(__file__).parent / "points" / "deployments.csv"
MAX_ROWS = 100_000

Skip = Literal[
    "acceptance-unknown",
    "baseline-unknown",
    "batch-unknown",
    "dtype-unknown",
    "format-unsupported",
    "hardware-unknown",
    "length-unknown",
    "model-unknown",
    "not-a-time",
    "offload-fraction-unknown",
    "parallelism-unknown",
    "reference-only",
]
Default = Literal[
    "a100-80g-for-40g",
    "chunk-of-engine",
    "dp-equals-ep",
    "isl-of-data-set",
    "isl-of-mean-cache",
    "kv-16bit",
    "kv-fp8",
    "mean-length-0.9",
    "mtp-depth-1",
    "one-device",
    "replicas-of-one",
    "rtx-4090-for-4090d",
    "tp-of-sockets",
]
Metric = Literal[
    "input_tok_s_per_device",
    "computed_tok_s_per_device",
    "output_tok_s_per_device",
    "total_tok_s_per_device",
    "tok_s_per_user",
    "tpot_ms",
    "ttft_ms",
    "e2e_ms",
]
UNITS: dict[str, str] = {
    "input_tok_s_per_device": "tokens/s per device",
    "computed_tok_s_per_device": "tokens/s per device",
    "output_tok_s_per_device": "tokens/s per device",
    "total_tok_s_per_device": "tokens/s per device",
    "tok_s_per_user": "tokens/s",
    "tpot_ms": "ms",
    "ttft_ms": "ms",
    "e2e_ms": "ms",
}
PLACES = ("device", "host", "disk")

_Count = Annotated[int, Field(ge=1, le=1_000_000)]
_Tokens = Annotated[float, Field(ge=1, le=16_777_216, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=400)]


class Deployment(BaseModel):
    """One measured point. ``None`` = not stated, or not part of such a scenario.

    ``devices`` counts what runs all instances; an instance has ``tp * pp * dp`` of them. ``batch`` is per attention rank,
    ``concurrency`` over the deployment. ``load``: ``single`` = one phase alone; ``closed`` = requests in flight are held;
    ``saturated`` = as many as fit; ``once`` = one batch, prefilled and then decoded. ``isl`` counts cached tokens too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,79}$")]
    set: Literal["deployments", "curves"]
    model: Annotated[str, Field(max_length=64)]
    hardware: Annotated[str, Field(max_length=64)]
    devices: _Count | None
    runtime: Annotated[str, Field(max_length=64)]
    version: Annotated[str, Field(max_length=64)]
    weight_dtype: Literal["", "native", "bf16", "fp8", "int8", "fp4", "int4"]
    """``native`` = as the catalogue's checkpoint stores them."""
    kv_dtype: Literal["", "bf16", "fp8", "int4"]
    phase: Literal["prefill", "decode", "serve"]
    mode: Literal["agg", "disagg"]
    load: Literal["", "single", "closed", "saturated", "once"]
    tp: _Count | None
    pp: _Count | None
    dp: _Count | None
    ep: _Count | None
    batch: Annotated[float, Field(gt=0, le=1e6)] | None
    concurrency: _Count | None
    chunk: _Tokens | None
    """Tokens of a prefill pass and attention rank."""
    prefill_tp: _Count | None
    prefill_dp: _Count | None
    prefill_ep: _Count | None
    isl: _Tokens | None
    osl: _Tokens | None
    context: _Tokens | None
    """Mean tokens resident of a decoding sequence; where absent ``isl + osl / 2``."""
    prefix_hit: Annotated[float, Field(ge=0, le=1)] | None
    mtp: Annotated[int, Field(ge=0, le=8)] | None
    accept_length: Annotated[float, Field(ge=1, le=9)] | None
    """Mean tokens a step yields."""
    balanced: bool
    """Experts were balanced by construction."""
    overlap: bool
    """Two micro-batches hide communication behind each other's computing."""
    weights_on: _Text
    """``""`` all in device memory, ``optimum`` not stated, or shares ``device:0.2 host:0.8``, after ``tables`` of tables."""
    cache_on: _Text
    """As ``weights_on``; after ``hits`` of cached prefixes only."""
    experts_on: _Text
    """System and count of the processors that compute the routed experts; ``""`` the devices do."""
    metric: Metric | Literal[""]
    value: Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
    """In the metric's unit (``UNITS``); of ratios the quotient over ``baseline``."""
    published: _Text
    """The figure as the source prints it."""
    source: Annotated[str, Field(pattern=r"^https://[^\s]{4,300}$")]
    source_group: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9./-]{0,79}$")]
    """Rows of one source and model: left out together."""
    quality: Literal["A", "B", "C"]
    score: Literal["absolute", "ratio", "reference"]
    core: bool
    skip: Skip | None
    defaults: tuple[Default, ...]
    """What the source leaves open and one well-defined default fills in."""
    baseline: str
    note: _Text

    @field_validator("set", "model", "hardware", "runtime", mode="before")
    @classmethod
    def _trimmed(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @property
    def unit(self) -> str:
        """Unit of ``value``."""
        return "" if self.score == "ratio" else UNITS.get(self.metric, "")

    @property
    def tiers(self) -> tuple[str, ...]:
        """Places beside device memory that hold something, and ``cpu`` where it computes experts."""
        text = f"{self.weights_on} {self.cache_on}"
        named = tuple(place for place in PLACES[1:] if f"{place}:" in text)
        host = ("host",) if "optimum" in text and "host" not in named else ()
        return named + host + (("cpu",) if self.experts_on else ())

    @model_validator(mode="after")
    def _scenario(self) -> Deployment:
        for name, text in (("weights_on", self.weights_on), ("cache_on", self.cache_on)):
            shares(text, name)
        if self.skip is not None:
            return self
        asked: dict[str, object] = {
            "model": self.model,
            "hardware": self.hardware,
            "devices": self.devices,
            "load": self.load,
            "metric": self.metric,
            "tp": self.tp,
            "pp": self.pp,
            "dp": self.dp,
            "ep": self.ep,
        }
        if self.phase == "prefill":
            asked["isl"] = self.isl
        elif self.context is None or self.phase == "serve":
            asked |= {"isl": self.isl, "osl": self.osl}
        if self.phase != "prefill" and self.load != "saturated":
            asked["batch or concurrency"] = self.batch or self.concurrency
        if self.phase == "serve" and self.mode == "disagg":
            asked |= {"prefill_tp": self.prefill_tp, "prefill_dp": self.prefill_dp, "prefill_ep": self.prefill_ep}
        if self.mtp:
            asked["accept_length"] = self.accept_length
        if self.score == "ratio":
            asked["baseline"] = self.baseline
        absent = [name for name, value in asked.items() if not value]
        if absent:
            raise ValueError(f"is a scenario but says nothing of {', '.join(absent)}; give it, or a reason to skip the row")
        assert self.tp and self.pp and self.dp and self.ep and self.devices
        if (self.tp * self.dp) % self.ep:
            raise ValueError(f"ep {self.ep} does not divide tp x dp = {self.tp * self.dp}")
        instance = self.tp * self.dp * self.pp
        if self.phase == "serve" and self.mode == "disagg":
            assert self.prefill_tp and self.prefill_dp
            instance += self.prefill_tp * self.prefill_dp
        if self.devices % instance:
            raise ValueError(f"{self.devices} devices are no whole number of instances of {instance}")
        if self.prefix_hit == 1.0:
            raise ValueError("prefix_hit 1 leaves nothing to compute")
        if self.mtp and self.accept_length and self.accept_length > 1 + self.mtp:
            raise ValueError(f"a step of {self.mtp} drafts yields at most {1 + self.mtp} tokens")
        return self


def shares(text: str, where: str = "shares") -> tuple[str, dict[str, float]]:
    """``"device:0.2 host:0.8"`` to ``("", {...})``; a leading word (``tables``, ``hits``, ``optimum``) is returned first."""
    words = text.split()
    scope = words.pop(0) if words and ":" not in words[0] else ""
    if scope not in ("", "tables", "hits", "optimum"):
        raise ValueError(f"{where}: unknown scope {scope[:32]!r}; write tables, hits or optimum")
    found: dict[str, float] = {}
    for word in words:
        place, _, number = word.partition(":")
        try:
            part = float(number)
        except ValueError:
            part = -1.0
        if place not in PLACES or place in found or not 0.0 < part <= 1.0:
            raise ValueError(f"{where}: cannot read {word[:32]!r}; write device:0.2 host:0.8")
        found[place] = part
    if found and abs(sum(found.values()) - 1.0) > 1e-6:
        raise ValueError(f"{where}: shares add up to {sum(found.values()):g}, not 1")
    return scope, found


_FLAGS = {"balanced", "overlap", "core"}
_WORDS = {
    name
    for name, field in Deployment.model_fields.items()
    if type(None) not in getattr(field.annotation, "__args__", ()) and name not in {"value", "defaults", *_FLAGS}
}


def _row(cells: dict[str, str], where: str) -> Deployment:
    given: dict[str, Any] = {}
    for name, text in cells.items():
        if name in _FLAGS:
            if text not in ("", "y", "yes", "n", "no"):
                raise InputError(f"{name}: {text[:32]!r} is neither yes nor no", where=where, mend="write y or n")
            given[name] = text in ("y", "yes")
        elif name == "defaults":
            given[name] = tuple(text.split())
        else:
            given[name] = text if name in _WORDS or text else None
    try:
        return Deployment.model_validate(given)
    except ValidationError as error:
        raise explain_validation(error, where) from None


def load_deployments(path: Path = POINTS) -> tuple[Deployment, ...]:
    """Every row of a file of deployments, in its order.

    ``InputError`` on an unknown or missing column, a row that contradicts itself, an id given twice, or a ratio over a row
    that is not there.
    """
    text, name = read_text(path), path.name
    lines = csv.reader(io.StringIO(text))
    rows: dict[str, Deployment] = {}
    columns = list(Deployment.model_fields)
    try:
        header = next(lines, [])
        for wrong in sorted(set(header) ^ set(columns)) or ([""] if len(header) != len(columns) else []):
            what = f"has no column {wrong!r}" if wrong in columns else f"has a column too many: {wrong[:32]!r}"
            raise InputError(what, where=name, mend=f"write the {len(columns)} columns of planner/accuracy/points/README.md")
        for number, cells in enumerate(lines, start=2):
            if not cells:
                continue
            where = f"{name} line {number}"
            if len(cells) != len(header):
                raise InputError(f"has {len(cells)} cells, the header {len(header)}", where=where, mend="quote cells with commas")
            if len(rows) >= MAX_ROWS:
                raise InputError(f"holds more than {MAX_ROWS} rows", where=name, mend="this does not look like the right file")
            row = _row(dict(zip(header, cells, strict=True)), where)
            if row.id in rows:
                raise InputError(f"id {row.id} is given twice", where=where, mend="give every row an id of its own")
            rows[row.id] = row
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", where=name, mend="correct the file") from None
    for row in rows.values():
        if row.baseline and (row.baseline not in rows or rows[row.baseline].metric != row.metric or row.baseline == row.id):
            raise InputError(f"baseline {row.baseline[:80]!r} of {row.id} is no row of the same metric", where=name)
    return tuple(rows.values())
