"""Bytes: what every item of a model occupies on a rank, and what the runtime reserves beside it."""

from planner.footprint.memory import Residency, reserve_parts, residency
from planner.footprint.pieces import (
    CacheItem,
    Gemm,
    LookupItem,
    ModelPieces,
    RoutedItem,
    StaticItem,
    Window,
    cut,
    item_names,
)
from planner.footprint.shapes import Shapes, stage_layers

__all__ = [
    "CacheItem",
    "Gemm",
    "LookupItem",
    "ModelPieces",
    "Residency",
    "RoutedItem",
    "Shapes",
    "StaticItem",
    "Window",
    "cut",
    "item_names",
    "reserve_parts",
    "residency",
    "stage_layers",
]
