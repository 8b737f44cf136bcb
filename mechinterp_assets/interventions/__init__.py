"""Interventions: causal experiments as validated data, run by one runner into one tidy frame."""

from mechinterp_assets.interventions.api import expand, load_interventions, run
from mechinterp_assets.interventions.runner import intervention_sets
from mechinterp_assets.interventions.spec import (
    Intervention,
    InterventionError,
    InterventionSet,
    Planned,
)
from mechinterp_assets.interventions.summary import intervention_summary

__all__ = [
    "Intervention",
    "InterventionError",
    "InterventionSet",
    "Planned",
    "expand",
    "intervention_sets",
    "intervention_summary",
    "load_interventions",
    "run",
]
