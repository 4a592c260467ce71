"""Exporters by name: the built-in ones and those of other packages, through the same door."""

from __future__ import annotations

import re
from typing import TypeGuard

from planner.errors import InputError, nearest
from planner.export.deployment import EngineDeployment
from planner.export.schema import Export, Exporter, ExportFile, Missing, NotCarried, Values
from planner.plugins import guarded, registry

GROUP = "planner.exporters"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def exporter_names() -> tuple[str, ...]:
    """Names that ``--to`` takes."""
    return registry(GROUP).names()


def exporter(name: str) -> Exporter:
    """The exporter of that name; ``InputError`` if there is none or it is no exporter."""
    if name not in exporter_names():
        known = exporter_names()
        mend = f"{nearest(name[:64], list(known))} (known: {', '.join(known)})"
        raise InputError(f"nothing is written for {name[:64]!r}", where="--to", mend=mend)
    found = registry(GROUP).get(name)
    if not all(callable(getattr(found, method, None)) for method in ("applies", "export")):
        registry(GROUP).report(name, "is no exporter: it lacks applies() or export()")
        raise InputError(f"{name!r} is no exporter", where=GROUP, mend="mend or uninstall that package")
    return found  # type: ignore[return-value]


def export_plan(deployment: EngineDeployment, target: str, values: Values, command: str) -> Export:
    """The files of a target; ``InputError`` where the plan can't be expressed there, or another package's exporter fails."""
    chosen = exporter(target)
    why, failed = _safely(target, lambda: chosen.applies(deployment))
    if failed:
        raise InputError(f"failed: {failed}", where=f"exporter {target}", mend="mend or uninstall its package")
    if why is not None:
        raise InputError(f"cannot express this plan: {why}", where=f"--to {target}")
    made, failed = _safely(target, lambda: chosen.export(deployment, values, command))
    if failed or not _sound(made):
        raise InputError(f"failed: {failed or 'returned no Export'}", where=f"exporter {target}", mend="mend its package")
    names = [file.name for file in made.files]
    if any(not _NAME.fullmatch(name) for name in names) or len(set(names)) < len(names):
        raise InputError("names a file twice, or one outside the output folder", where=f"exporter {target}")
    return made


def _sound(made: object) -> TypeGuard[Export]:
    """Whether all that is read of an export has the type that it is declared with."""
    if not isinstance(made, Export):
        return False
    rows = (made.files, ExportFile), (made.not_carried, NotCarried), (made.missing, Missing), (made.notes, str)
    if not all(isinstance(row, tuple) and all(isinstance(part, kind) for part in row) for row, kind in rows):
        return False
    return all(isinstance(file.name, str) and isinstance(file.content, bytes) for file in made.files)


def _safely(target: str, call):  # type: ignore[no-untyped-def]
    """The result of a call, guarded where the exporter is another package's."""
    builtin = registry(GROUP).builtin(target)
    return (call(), "") if builtin else guarded(call)
