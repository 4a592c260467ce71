"""Families: each reads the configuration of one ``model_type`` into blocks. They register as plugins and load lazily."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from planner.architecture.blocks import Identity, Model
from planner.documents import explain_validation
from planner.errors import InputError
from planner.plugins import registry

GROUP = "planner.model_families"


@dataclass(frozen=True)
class Family:
    """``config`` describes and checks the fields of a configuration; ``build`` makes the model of a checked one."""

    name: str
    config: type[BaseModel]
    build: Callable[[Any, Identity], Model]

    def read(self, config: Mapping[str, object], identity: Identity, where: str) -> Model:
        """The model that ``config`` describes; ``where`` names the file in messages."""
        try:
            return self.build(self.config.model_validate(dict(config)), identity)
        except ValidationError as error:
            raise explain_validation(error, where) from None


def family(name: str) -> Family:
    """The family that reads configurations of ``model_type`` ``name``."""
    found = registry(GROUP).get(name)
    if not isinstance(found, Family):
        raise InputError(f"plugin {name!r} is no planner.architecture.Family", where=GROUP, mend="mend or uninstall its package")
    return found


def family_names() -> tuple[str, ...]:
    """Every ``model_type`` that can be read."""
    return registry(GROUP).names()
