"""A point of a sweep: its options, the parts it needs, and an id that changes with anything its result depends on."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from planner.sweep.axes import AXES
from planner.sweep.parts import Part, Parts
from planner.sweep.spec import Spec, Values
from planner.version import CATALOGUE_VERSION, __version__

ID_CHARACTERS = 20
VERSIONS = {"planner": __version__, "catalogue": CATALOGUE_VERSION}


@dataclass(frozen=True)
class Point:
    """``parts``: by role, the digest of what it names."""

    id: str
    values: Values
    parts: dict[str, str]

    @property
    def command(self) -> str:
        """The command line that plans it alone, where the specification lies."""
        return shlex.join(["planner", "plan", self.values["model"], self.values["hardware"], *_options(self.values)])


def _options(values: Values) -> Iterator[str]:
    for name, value in values.items():
        if name in ("case", "model", "hardware"):
            continue
        axis = AXES[name]
        if axis.type == "truth":
            yield from [axis.option] if value else []
            continue
        for word in axis.words(value):
            yield from (axis.option, word)


def point_id(values: Values, parts: dict[str, str]) -> str:
    """A hash of the options, of everything they name as loaded, and of the versions of planner and catalogue."""
    plain = {"values": values, "parts": parts, "versions": VERSIONS}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:ID_CHARACTERS]


class Points:
    """The points of a specification in its own order, made anew at each pass; ``library``: the parts by digest."""

    def __init__(self, spec: Spec, parts: Parts) -> None:
        self.spec, self.parts = spec, parts
        self.library: dict[str, Part] = {}

    def __iter__(self) -> Iterator[Point]:
        for values in self.spec.points():
            found = self.parts.of(values)
            self.library.update((part.digest, part) for part in found.values())
            digests = {role: part.digest for role, part in found.items()}
            yield Point(point_id(values, digests), values, digests)


def sweep_id(ids: Iterable[str]) -> str:
    """What the same points have in common, in whatever order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:ID_CHARACTERS]
