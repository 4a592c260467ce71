"""A plan as files that serving engines and clusters accept."""

from planner.export.deployment import EngineDeployment, EnginePool, Held, engine_deployment
from planner.export.exporters import export_plan, exporter, exporter_names
from planner.export.schema import Export, Exporter, ExportFile, Missing, NotCarried, Values, load_values

__all__ = [
    "EngineDeployment",
    "EnginePool",
    "Export",
    "ExportFile",
    "Exporter",
    "Held",
    "Missing",
    "NotCarried",
    "Values",
    "engine_deployment",
    "export_plan",
    "exporter",
    "exporter_names",
    "load_values",
]
