"""Hardware: devices, memories with owners, links and networks, as sourced profiles in TOML."""

from planner.hardware.given import apply_settings, unknown_figures
from planner.hardware.loader import HardwareSummary, list_hardware, load_device, load_hardware, read_profile
from planner.hardware.schema import Compute, Curve, Device, DeviceProfile, Domain, HardwareSelection, Link, System, Tier
from planner.hardware.writer import to_toml

__all__ = [
    "Compute",
    "Curve",
    "Device",
    "DeviceProfile",
    "Domain",
    "HardwareSelection",
    "HardwareSummary",
    "Link",
    "System",
    "Tier",
    "apply_settings",
    "list_hardware",
    "load_device",
    "load_hardware",
    "read_profile",
    "to_toml",
    "unknown_figures",
]
