"""Versions that a plan records."""

__version__ = "0.1.0"
CATALOGUE_VERSION = "2026-11-22"
