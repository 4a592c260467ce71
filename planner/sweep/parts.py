"""What the points of a sweep name, loaded once by whoever starts it: workers need no file of it."""

from __future__ import annotations

import hashlib
import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from planner.errors import InputError
from planner.sweep.spec import Values


@dataclass(frozen=True)
class Part:
    """A loaded object as it travels, and what it is in a hash."""

    digest: str
    packed: bytes


@lru_cache(maxsize=1024)
def unpack(packed: bytes) -> Any:
    """The object; a worker that meets it again has it already."""
    return pickle.loads(zlib.decompress(packed))


def _digest(value: BaseModel | dict[str, BaseModel]) -> str:
    parts = value if isinstance(value, dict) else {"": value}
    text = "\n".join(f"{name} {part.model_dump_json()}" for name, part in parts.items())
    return hashlib.sha256(text.encode()).hexdigest()


class Parts:
    """The parts of a sweep by role and name. A relative file is looked for in ``folder``, hardware first in ``profiles``."""

    def __init__(self, folder: Path, where: str, profiles: tuple[Path, ...] = ()) -> None:
        self.folder, self.where, self.profiles = folder, where, profiles
        self._loaded: dict[tuple[str, ...], Part] = {}
        self._loaders: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
            "model": (("model",), self._model),
            "hardware": (("hardware",), self._hardware),
            "workload": (("workload",), self._workload),
            "experts": (("experts",), self._experts),
            "runtime": (("runtime", "calibration"), self._runtime),
            "prices": (("price_basis",), self._prices),
            "site": (("site",), self._site),
        }

    def of(self, values: Values) -> dict[str, Part]:
        """The parts of a point by role; what it does not name and has no default has none. ``InputError`` if there is no such
        thing."""
        found = {}
        for role, (names, load) in self._loaders.items():
            given = tuple(values.get(name) or _DEFAULTS.get(name, "") for name in names)
            if not any(given):
                continue
            if (role, *given) not in self._loaded:
                try:
                    value = load(*given)
                except InputError as error:
                    where = f"{self.where}: {names[0]} {given[0]!r}"
                    raise InputError(
                        error.what, where=f"{where}: {error.where}" if error.where else where, mend=error.mend
                    ) from None
                self._loaded[role, *given] = Part(_digest(value), zlib.compress(pickle.dumps(value, protocol=5)))
            found[role] = self._loaded[role, *given]
        return found

    def _beside(self, name: str) -> str:
        """A file is looked for beside the specification; ``./name`` stays one where that is this folder."""
        named = name.startswith(("./", "../")) or name in (".", "..") or name.endswith((".toml", ".json", ".csv"))
        return os.path.join(self.folder, name) if named else name

    def _model(self, name: str) -> Any:
        from planner.architecture import load_model

        return load_model(self._beside(name))

    def _hardware(self, name: str) -> Any:
        from planner.api import parse_hardware

        pools = []
        for part in name.split(","):
            phase, equals, rest = part.rpartition("=")
            system, colon, count = rest.partition(":")
            pools.append(f"{phase}{equals}{self._beside(system)}{colon}{count}")
        return parse_hardware(",".join(pools), self.profiles)

    def _workload(self, name: str) -> Any:
        from planner.workload import load_workload

        return load_workload(self._beside(name))

    def _experts(self, text: str) -> Any:
        from planner.workload.arguments import use_of_experts

        return use_of_experts(self._beside(text))

    def _runtime(self, name: str, calibration: str) -> Any:
        from planner.runtimes import calibrated_runtime

        return calibrated_runtime(self._beside(name), Path(self._beside(calibration)) if calibration else None)

    def _prices(self, name: str) -> Any:
        from planner.hardware.schema import RentBasis
        from planner.prices import load_prices

        return load_prices("owned" if name in get_args(RentBasis) else self._beside(name))

    def _site(self, name: str) -> Any:
        from planner.hardware import load_site

        return load_site(self._beside(name), folders=self.profiles)


_DEFAULTS = {"workload": "interactive", "runtime": "generic", "price_basis": "owned"}
