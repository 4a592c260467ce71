"""Published deployments that are predicted beyond a factor of two, each with what explains it or the word that nothing does."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.accuracy.predict_deployments import Prediction
from planner.documents import explain_validation, read_text
from planner.errors import InputError

MISSES = Path(__file__).parent / "points" / "misses.csv"


class Miss(BaseModel):
    """Why one row is missed: ``explained`` by what its source or others say of it, ``partly`` so, or ``unexplained``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(min_length=1, max_length=80)]
    standing: Literal["explained", "partly", "unexplained"]
    reason: Annotated[str, Field(min_length=1, max_length=400)]


def is_missed(found: Prediction) -> bool:
    """Whether a scored figure is predicted at less than half or at more than twice what was measured."""
    return found.row.score != "reference" and not 0.5 <= 1.0 + found.error <= 2.0


def load_misses(path: Path = MISSES) -> dict[str, Miss]:
    """The file's rows by id. ``InputError`` on another header, an empty reason or an id given twice."""
    lines = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    found: dict[str, Miss] = {}
    try:
        if lines.fieldnames != list(Miss.model_fields):
            raise InputError("has another header", where=path.name, mend=f"write {','.join(Miss.model_fields)}")
        for cells in lines:
            try:
                miss = Miss.model_validate(cells)
            except ValidationError as error:
                raise explain_validation(error, f"{path.name} line {lines.line_num}") from None
            if miss.id in found:
                raise InputError(f"id {miss.id} is given twice", where=path.name, mend="keep one row of each id")
            found[miss.id] = miss
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", where=path.name, mend="correct the file") from None
    return found
