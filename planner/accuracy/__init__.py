"""Predictions against what was measured."""
