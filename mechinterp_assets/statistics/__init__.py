"""Intervals and bootstraps."""
