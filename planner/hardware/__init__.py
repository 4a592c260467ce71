"""Hardware: devices, memories with owners, links and networks, as sourced profiles in TOML."""

from planner.hardware.given import apply_settings, figures_of, unknown_figures, with_estimates
from planner.hardware.kinds import SCHEMAS, Profile
from planner.hardware.loader import (
    HardwareSummary,
    list_hardware,
    load_device,
    load_hardware,
    load_part,
    load_site,
    read_profile,
)
from planner.hardware.parts import InterconnectPart, MemoryPart, Site, UnitPrice, usd_per_gb
from planner.hardware.schema import Compute, Curve, Device, DeviceProfile, Domain, HardwareSelection, Link, System, Tier
from planner.hardware.writer import to_toml

__all__ = [
    "SCHEMAS",
    "Compute",
    "Curve",
    "Device",
    "DeviceProfile",
    "Domain",
    "HardwareSelection",
    "HardwareSummary",
    "InterconnectPart",
    "Link",
    "MemoryPart",
    "Profile",
    "Site",
    "System",
    "Tier",
    "UnitPrice",
    "apply_settings",
    "figures_of",
    "list_hardware",
    "load_device",
    "load_hardware",
    "load_part",
    "load_site",
    "read_profile",
    "to_toml",
    "unknown_figures",
    "usd_per_gb",
    "with_estimates",
]
