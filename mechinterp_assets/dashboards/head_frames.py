"""The tables of a study's heads, as their pages read them.

Belongs here: which tables and columns head pages need. Where tables come from is the caller's: it
passes functions that read them. No HTML.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

# Frame of HeadFrames -> table of a study, or of each layer with an SAE. What is there is shown.
OF_STUDY = {
    "examples": "head_attention_examples",
    "labels": "head_labels",
    "edges": "trace_graph",
    "nodes": "trace_nodes",
    "effects": "intervention_summary",
    "task_effects": "task_head_effects",
}
OF_SITE = {"features": "head_features", "proxy": "head_polysemanticity_proxy"}
# Frames that are views: what their rows come from, and the SQL.
SCORE_TABLES = ("head_scores", "ioi_head_scores")
FAMILY_TABLE = "feature_families"
SCORES = "SELECT * EXCLUDE (study) FROM head_score_tests WHERE study = $study"
ROLES = "SELECT layer, head, role FROM head_roles WHERE study = $study"
FAMILIES = "SELECT layer, feature, family FROM feature_family_labels WHERE study = $study"

_NEEDED = {
    "scores": (
        *("layer", "head", "score", "value", "n", "null_mean", "null_sd", "threshold", "passes"),
        "dataset",
    ),
    "roles": ("layer", "head", "role"),
    "examples": (
        *("layer", "head", "rank", "sequence", "destination", "source", "attention"),
        *("selection", "attention_quantile", "attention_row"),
    ),
    "features": (
        *("layer", "head", "rank", "alive_rank", "feature", "attribution", "is_alive", "density"),
        *("frequent_tokens", "promoted_tokens"),
    ),
    "families": ("layer", "feature", "family"),
    "proxy": (
        *("layer", "head", "measure", "n_compared", "n_clusters", "null_n_clusters"),
        *("null_n_clusters_sd", "clusters", "features"),
    ),
    "labels": ("layer", "head", "feature", "rater", "label", "class", "note"),
    "edges": (
        *("task", "upstream_layer", "upstream_head", "downstream_layer", "downstream_head"),
        *("destination_role", "source_role", "side", "n_prompts", "mean_contribution"),
        *("mean_contribution_share", "mean_head_share", "mean_exact_effect"),
    ),
    "nodes": (
        *("task", "layer", "head", "destination_role", "source_role", "n_prompts"),
        *("mean_attention", "mean_destination_head_share", "mean_source_head_share"),
    ),
    "effects": (
        *("task", "layer", "head", "mode", "reference", "position_role", "metric"),
        *("mean_effect", "ci_low", "ci_high", "n"),
    ),
    "task_effects": (
        *("task", "mode", "reference", "layer", "head", "metric", "n", "mean_effect"),
        *("ci_low", "ci_high"),
    ),
}


@dataclass(frozen=True)
class HeadFrames:
    """Frames of one study, each with the columns that head pages show; rows of all heads.

    A block whose frame is None, or has no row of a head, is left out of its page.

    Attributes:
        scores: view head_score_tests.
        roles: view head_roles.
        examples: head_attention_examples.
        features: head_features of all layers with an SAE.
        families: view feature_family_labels.
        proxy: head_polysemanticity_proxy of all layers with an SAE.
        labels: head_labels.
        edges: trace_graph.
        nodes: trace_nodes of the rule of `edges`.
        effects: rows of intervention_summary that ablate one head.
        task_effects: task_head_effects: the same on other tasks' prompts.
    """

    scores: pl.DataFrame
    roles: pl.DataFrame | None = None
    examples: pl.DataFrame | None = None
    features: pl.DataFrame | None = None
    families: pl.DataFrame | None = None
    proxy: pl.DataFrame | None = None
    labels: pl.DataFrame | None = None
    edges: pl.DataFrame | None = None
    nodes: pl.DataFrame | None = None
    effects: pl.DataFrame | None = None
    task_effects: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        for name, columns in _NEEDED.items():
            frame = getattr(self, name)
            missing = [c for c in columns if frame is not None and c not in frame.columns]
            if missing:
                raise ValueError(f"frame {name} lacks {missing}; pass whole rows of its table")

    @property
    def heads(self) -> list[tuple[int, int]]:
        """(layer, head) of every head that has scores, ascending."""
        return self.scores.select("layer", "head").unique().sort("layer", "head").rows()

    def sequences(self) -> list[int]:
        """Sequences of the examples, unique and ascending."""
        return [] if self.examples is None else self.examples["sequence"].unique().sort().to_list()


def head_frames(
    read: Callable[[str, str | None], pl.LazyFrame | None],
    query: Callable[[str], pl.DataFrame],
    sites: Sequence[str],
) -> HeadFrames:
    """Frames of a study.

    Args:
        read: current rows of a table for the study (None) or a site's key; None where it has none.
        query: rows of SQL with the parameter $study.
        sites: keys of the study's sites.

    Raises:
        ValueError: the study has no head_scores.
    """
    scores = query(SCORES)
    if scores.is_empty():
        raise ValueError("the study has no head_scores; materialize them")
    lazy = {name: read(table, None) for name, table in OF_STUDY.items()}
    if (effects := lazy["effects"]) is not None:
        lazy["effects"] = effects.filter(
            (pl.col("kind") == "head_ablation")
            & (pl.col("alpha") == 1)
            & ~pl.col("is_control").fill_null(False)
        )
    if (nodes := lazy["nodes"]) is not None:
        lazy["nodes"] = (
            nodes
            if (edges := lazy["edges"]) is None
            else nodes.join(
                edges.select("task", "trace_rule").unique(), on=["task", "trace_rule"], how="semi"
            )
        )
    for name, table in OF_SITE.items():
        found = [rows for key in sites if (rows := read(table, key)) is not None]
        lazy[name] = pl.concat(found) if found else None
    there = {name: rows.select(_NEEDED[name]) for name, rows in lazy.items() if rows is not None}
    frames = dict(zip(there, pl.collect_all(there.values()), strict=True))
    return HeadFrames(
        **frames,
        scores=scores,
        roles=query(ROLES),
        families=query(FAMILIES) if "features" in frames else None,
    )
