"""The options and configuration classes that engines take: snapshots of their own names, kinds and choices
(``.ci/engine_options.py``, ``.ci/config_fields.py``)."""

from planner.export.options.fields import ConfigFields, config_faults, load_fields
from planner.export.options.words import EngineOptions, Fault, Option, load_options, parse_words

__all__ = [
    "ConfigFields",
    "EngineOptions",
    "Fault",
    "Option",
    "config_faults",
    "load_fields",
    "load_options",
    "parse_words",
]
