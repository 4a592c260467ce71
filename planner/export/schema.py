"""Files that an exporter writes, what it could not say in them, and the site's own values that fill them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from planner.documents import explain_validation, parse_toml, read_text

if TYPE_CHECKING:
    from planner.export.deployment import EngineDeployment

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
_Set = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
_Line = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Label = Annotated[str, StringConstraints(min_length=1, max_length=317, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$")]
_LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
_Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9.]{0,252}:[1-9][0-9]{0,4}$")]
_Quantity = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}(Ki|Mi|Gi|Ti|k|M|G|T)?$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PoolValues(_Part):
    """What differs between pools."""

    image: _Line | None = None
    node_selector: Annotated[dict[_Label, _LabelValue], Field(max_length=32)] = {}
    resource: _Label | None = None
    urls: Annotated[tuple[_Address, ...], Field(max_length=4096)] = ()
    """``host:port`` of each instance, for files that list them."""


class Values(_Part):
    """What a plan can't know of the place where it is to run; ``None``: not given."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: _Set | None = None
    """Of the deployment's objects, at most 40 characters so that pods' names fit; the model's where left out."""
    namespace: _Name | None = None
    engine: Literal["vllm", "sglang"] | None = None
    """What the pods of a manifest run; vLLM where left out (its plugin on Ascend devices)."""
    image: _Line | None = None
    model_path: _Line | None = None
    """Hub id, or path inside the container."""
    pvc: _Name | None = None
    """Volume claim that holds the weights, mounted at ``mount_path``."""
    mount_path: _Line = "/models"
    served_model_name: _Line | None = None
    resource: _Label | None = None
    """Extended resource of a device: ``nvidia.com/gpu``, ``huawei.com/Ascend910``."""
    resources: Annotated[dict[_Label, _Quantity], Field(max_length=16)] = {}
    """Whatever else a pod of an engine asks for: network devices, ``memory``, ``cpu``."""
    node_selector: Annotated[dict[_Label, _LabelValue], Field(max_length=32)] = {}
    image_pull_secret: _Name | None = None
    shared_memory: _Quantity | None = None
    """Size of /dev/shm; 64 GiB and the lookup tables that lie in host memory where left out."""
    service_account: _Name | None = None
    interface: _Line | None = None
    """Network interface or InfiniBand device of transfers between pools."""
    cache_path: _Line | None = None
    """Folder on a node's drive for blocks of the prefix cache."""
    storage_bytes_per_s: Annotated[float, Field(gt=0, le=1e13, allow_inf_nan=False)] | None = None
    """What a node loads weights with at a cold start, from wherever the site keeps them."""
    prometheus: _Line | None = None
    """Address of the Prometheus server that has the engines' metrics: ``http://prometheus.monitoring:9090``."""
    scale_at: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.8
    """Share of the requests in flight that its instances keep within the limits at which a pool gets another instance."""
    pools: Annotated[dict[Literal["prefill", "decode", "mixed"], PoolValues], Field(max_length=3)] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    @model_validator(mode="after")
    def _path(self) -> Values:
        if not self.mount_path.startswith("/"):
            raise ValueError("mount_path: must be absolute")
        return self

    def image_of(self, phase: str) -> str | None:
        """The image of a pool's containers."""
        own = self.pools.get(phase)  # type: ignore[call-overload]
        return self.image if own is None or own.image is None else str(own.image)

    def selector_of(self, phase: str) -> dict[str, str]:
        """The node selector of a pool: its own, on top of the common one."""
        own = self.pools.get(phase)  # type: ignore[call-overload]
        return {**self.node_selector, **({} if own is None else own.node_selector)}

    def urls_of(self, phase: str) -> tuple[str, ...]:
        """Addresses of a pool's instances, as far as they are given."""
        own = self.pools.get(phase)  # type: ignore[call-overload]
        return () if own is None else tuple(own.urls)

    def resource_of(self, phase: str) -> str | None:
        """The extended resource of a pool's devices."""
        own = self.pools.get(phase)  # type: ignore[call-overload]
        return self.resource if own is None or own.resource is None else str(own.resource)


def load_values(path: Path) -> Values:
    """Values from a TOML file; ``InputError`` with file and key where it is none."""
    try:
        return Values.model_validate(parse_toml(read_text(path), str(path)))
    except ValidationError as error:
        raise explain_validation(error, str(path)) from None


@dataclass(frozen=True)
class ExportFile:
    """A file to write: a plain name in the output folder, and its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True)
class NotCarried:
    """Something of the plan that the target can't express, and what happens in its place."""

    what: str
    why: str
    instead: str = ""


@dataclass(frozen=True)
class Missing:
    """A value that the files need and nobody gave: its key in the values file and the placeholder that stands there."""

    key: str
    placeholder: str
    why: str


@dataclass(frozen=True)
class Export:
    """All of an export; ``notes``: lines for people."""

    target: str
    files: tuple[ExportFile, ...]
    not_carried: tuple[NotCarried, ...] = ()
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()


class Exporter(Protocol):
    """An object of the plugin group ``planner.exporters``."""

    engine: str
    """What it writes for, with the version whose options were checked: ``vLLM 0.33.0``."""

    def applies(self, deployment: EngineDeployment) -> str | None:
        """``None`` where the plan can be expressed at all, else why not, in a line."""

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """The files; ``command`` is the ``planner export`` line that asked for them."""
