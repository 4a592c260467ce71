"""Models as graphs of blocks with exact parameters, bytes, cache entries and FLOPs."""

from planner.architecture.blocks import Block, Edge, Identity, Model, Router, Speculation
from planner.architecture.catalogue import Entry, find_model, list_models
from planner.architecture.families import Family, family, family_names
from planner.architecture.formats import FORMATS, Format, convert, format_of
from planner.architecture.importer import load_model, model_from_config, read_config
from planner.architecture.lookups import Lookup, lookups, prefetch_window, token_addressed
from planner.architecture.parts import CALCULATOR, Cache, FlopTerm, Hashed, Phase, Read, Span, Tensor, WeightGroup
from planner.architecture.popularity import Popularity, measured, zipf

__all__ = [
    "CALCULATOR",
    "FORMATS",
    "Block",
    "Cache",
    "Edge",
    "Entry",
    "Family",
    "FlopTerm",
    "Format",
    "Hashed",
    "Identity",
    "Lookup",
    "Model",
    "Phase",
    "Popularity",
    "Read",
    "Router",
    "Span",
    "Speculation",
    "Tensor",
    "WeightGroup",
    "convert",
    "family",
    "family_names",
    "find_model",
    "format_of",
    "list_models",
    "load_model",
    "lookups",
    "measured",
    "model_from_config",
    "prefetch_window",
    "read_config",
    "token_addressed",
    "zipf",
]
