"""The built-in models: small TOML files whose ``[config]`` the family reads as it reads a Hugging Face config.json."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.architecture.blocks import Identity, Model
from planner.architecture.families import family
from planner.catalogue import Catalogue

FOLDER = Path(__file__).parent / "models"


class Entry(BaseModel):
    """One file of the catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(alias="schema")
    id: str
    name: str
    aliases: tuple[str, ...] = ()
    family: str
    source: str
    as_of: date
    license: str = ""
    config: dict[str, object]

    def load(self) -> Model:
        identity = Identity.model_validate(self.model_dump(include=set(Identity.model_fields)))
        return family(self.family).read(self.config, identity, f"models/{self.id}.toml [config]")


@cache
def list_models() -> tuple[Entry, ...]:
    """Every model of the catalogue, by id."""
    return tuple(Catalogue(FOLDER, Entry, "model"))


def find_model(name: str) -> Entry | None:
    """The entry with that id or alias, in any case; ``None`` if there is none."""
    wanted = name.casefold()
    return next((entry for entry in list_models() if wanted == entry.id or wanted in entry.aliases), None)
