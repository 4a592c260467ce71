"""Where profile files lie: the built-in folder, the packs of other packages, and the files below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from planner.errors import InputError
from planner.plugins import registry

MAX_PROFILES = 2000
MAX_ENTRIES = 50_000
"""Files and folders below a folder of profiles that are looked at in search of them."""


def builtin_folder() -> Path:
    """The folder of the built-in profiles: the installed one if it exists, else that of the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_hardware_profiles"
    return installed if installed.is_dir() else package.parent / "hardware_profiles"


def catalogue_folder() -> Path:
    """The folder of the built-in profiles, by the door that packs use."""
    return registry("planner.hardware").folder("builtin")


def of_catalogue(path: Path) -> bool:
    """Whether a file lies in the built-in catalogue."""
    return real(path).is_relative_to(real(builtin_folder()))


def packs() -> dict[str, list[Path]]:
    """The profile files of other packages, by the name of the pack.

    A package that fails must not stop what needs no plugin: it is passed over, and ``planner list plugins`` says why.
    """
    offers = registry("planner.hardware")
    found = {}
    for name, folder in offers.other_folders().items():
        try:
            found[name] = profiles_below(folder)
        except InputError as error:
            offers.report(name, str(error))
    return found


def report_pack(name: str, reason: str) -> None:
    """Put the fault of a pack on record with its registry."""
    registry("planner.hardware").report(name, reason)


def profiles_below(folder: Path) -> list[Path]:
    """The profile files below a folder, by path; links that lead out of it are left out."""
    inside = real(folder)
    found: list[Path] = []
    entries = 0
    for parent, subfolders, names in os.walk(inside):
        subfolders.sort()
        entries += len(subfolders) + len(names)
        if entries > MAX_ENTRIES:
            raise InputError(f"holds more than {MAX_ENTRIES} files and folders", where=str(folder), mend="name a smaller folder")
        for name in sorted(names):
            path = Path(parent, name)
            if name.endswith(".toml") and not name.startswith(".") and real(path).is_relative_to(inside):
                found.append(path)
        if len(found) > MAX_PROFILES:
            raise InputError(f"holds more than {MAX_PROFILES} profiles", where=str(folder), mend="name a smaller folder")
    return found


def real(path: Path) -> Path:
    """The path without links."""
    return Path(os.path.realpath(path))


def below(target: Path, path: Path) -> bool:
    """Whether a target lies in the folder of a file or deeper."""
    return real(target).is_relative_to(real(path).parent)
