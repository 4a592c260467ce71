"""The kinds of profile and the schema of each."""

from __future__ import annotations

from typing import Any, TypeAlias

from planner.hardware.parts import InterconnectPart, MemoryPart, Site
from planner.hardware.schema import DeviceProfile, System

Profile: TypeAlias = DeviceProfile | System | MemoryPart | InterconnectPart | Site

SCHEMAS: dict[str, type[Any]] = {
    "device": DeviceProfile,
    "node": System,
    "rack": System,
    "memory": MemoryPart,
    "interconnect": InterconnectPart,
    "site": Site,
}

SORTS = {"device": "device", "node": "system", "rack": "system", "memory": "part", "interconnect": "part", "site": "site"}
"""What a profile is looked up as; names are unique within a sort."""

CALLED: dict[object, str] = {
    DeviceProfile: "a device",
    System: "a system",
    MemoryPart: "a memory",
    InterconnectPart: "an interconnect",
    Site: "a site",
}

EXPECTED = f"expected {', '.join(list(SCHEMAS)[:-1])} or {list(SCHEMAS)[-1]}"
