"""The options that engines take: snapshots of their own parsers' names, kinds and choices (``.ci/engine_options.py``)."""

from planner.export.options.words import EngineOptions, Fault, Option, load_options, parse_words

__all__ = ["EngineOptions", "Fault", "Option", "load_options", "parse_words"]
