"""Which SAE features are intervened on: those that a task's logit difference depends on most.

Belongs here: the frame of attributions and the choice of the largest. Does not belong here: how
they are computed (feature_attribution.py).
"""

import polars as pl

from mechinterp_assets.interventions.terms import InterventionError

FEATURE_ATTRIBUTION_SCHEMA = {
    "layer": pl.Int32,
    "feature": pl.Int32,
    "n": pl.Int64,
    "n_active": pl.Int64,
    "mean_activation": pl.Float64,
    "attribution": pl.Float64,
}


def top_features(attribution: pl.DataFrame, per_layer: int) -> dict[int, list[int]]:
    """The features of each layer with the largest absolute attribution, largest first."""
    if per_layer < 1:
        raise InterventionError(f"per_layer is {per_layer}; ask for at least 1")
    ranked = attribution.sort(pl.col("attribution").abs(), descending=True, maintain_order=True)
    return {
        int(str(layer)): own["feature"].head(per_layer).to_list()
        for (layer,), own in ranked.group_by(["layer"], maintain_order=True)
    }
