"""The section `circuits` of a study: circuit quality.

Belongs here: its keys and the checks that concern it alone. Does not belong here: the methods.
"""

from typing import Literal

from pydantic import field_validator

from mechinterp_assets.settings.section import Count, Positive, Section


class CircuitSettings(Section):
    """Circuit quality: edge attribution, faithfulness of edge and head sets, the subspace check."""

    tasks: list[str] = ["ioi"]
    """ioi, or tasks of this study that have corrupted prompts."""
    counterfactual: str = "ABC"
    """IOI's counterfactual: one of ioi.variants. That of other tasks is their corrupt variant."""
    prompts: Positive = 16
    """Pairs of prompts behind scores, curves and head sets."""
    ig_steps: Positive = 5
    """Points of EAP-IG."""
    ig_rules: list[Literal["library", "paper", "midpoint"]] = ["library", "paper", "midpoint"]
    """Where these points lie; all are stored, the first rule's ranking has a curve."""
    exact_prompts: Positive = 4
    """The first pairs, for exact patching of edges."""
    exact_edges: Positive = 5000
    """Edges that are patched; of a model with more a seeded sample is, and exact effects rank no
    circuit."""
    random_rankings: Count = 3
    """Random rankings of edges, as controls."""
    head_set_size: Positive = 8
    """Heads of the trace's and of the ablation's set."""
    minimality_heads: Count = 12
    """Sets of at most this many heads have minimality."""
    random_head_sets: Count = 5
    """Random head sets, as controls."""
    random_subsets: Count = 3
    """Random subsets of each set that are taken out for completeness."""
    subspace_features: Count = 2
    """SAE features per layer and role whose decoder rows are patched, those that differ most
    between prompts and counterfactuals."""
    seed: int = 0
    """Seed of samples and controls."""

    @field_validator("tasks", "ig_rules")
    @classmethod
    def _distinct_and_some(cls, names: list[str]) -> list[str]:
        if not names or len(set(names)) < len(names):
            raise ValueError("name at least one, each once")
        return names
