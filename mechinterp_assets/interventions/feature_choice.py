"""Which SAE features are intervened on: all that are active, or those that matter most.

Belongs here: the frame of attributions and the choice of features. Does not belong here: how
attributions are computed (feature_attribution.py).

Attributions of the two orders of names are kept apart: a feature that helps one and harms the other
may have none on average.
"""

from dataclasses import dataclass

import polars as pl

from mechinterp_assets.interventions.terms import InterventionError

FEATURE_ATTRIBUTION_SCHEMA = {
    "layer": pl.Int32,
    "feature": pl.Int32,
    "name_order": pl.String,
    "n": pl.Int64,
    "n_active": pl.Int64,
    "mean_activation": pl.Float64,
    "attribution": pl.Float64,
}


@dataclass(frozen=True)
class LayerChoice:
    """Features of one layer, the largest attribution first.

    n_active: how many were active; whole: whether all of them were chosen. strongest: feature ->
    (name order, attribution) where its absolute attribution is largest.
    """

    features: tuple[int, ...]
    n_active: int
    strongest: dict[int, tuple[str | None, float]]

    @property
    def whole(self) -> bool:
        return len(self.features) == self.n_active


def top_features(attribution: pl.DataFrame, per_layer: int) -> dict[int, list[int]]:
    """The features of each layer with the largest absolute attribution, largest first.

    per_layer of each order of names, so that at most as many times that as there are orders.
    """
    if per_layer < 1:
        raise InterventionError(f"per_layer is {per_layer}; ask for at least 1")
    ranked = _ranked(attribution)
    chosen = (
        ranked.group_by("layer", "name_order", maintain_order=True)
        .head(per_layer)
        .select("layer", "feature")
        .unique()
    )
    own = ranked.join(chosen, on=["layer", "feature"], maintain_order="left").unique(
        ["layer", "feature"], keep="first", maintain_order=True
    )
    return {
        int(str(layer)): one["feature"].to_list()
        for (layer,), one in own.group_by(["layer"], maintain_order=True)
    }


def features_to_ablate(
    attribution: pl.DataFrame, *, per_layer: int, at_most: int
) -> dict[int, LayerChoice]:
    """Layer -> all its active features, as long as these are `at_most` in all layers together.

    Layers are taken in the order of their largest absolute attribution. A layer that would exceed
    what is left has its `top_features` alone: attribution is to first order, and chooses only where
    their number forces it.
    """
    top = top_features(attribution, per_layer)
    ranked = _ranked(attribution)
    left, found = at_most, {}
    for (layer,), own in ranked.group_by(["layer"], maintain_order=True):
        first = own.unique("feature", keep="first", maintain_order=True)
        active = first["feature"].to_list()
        chosen = active if len(active) <= left else top[int(str(layer))]
        left -= len(active) if len(active) <= left else 0
        strongest = {
            feature: (order, value)
            for feature, order, value in first.select(
                "feature", "name_order", "attribution"
            ).iter_rows()
        }
        found[int(str(layer))] = LayerChoice(tuple(chosen), len(active), strongest)
    return found


def _ranked(attribution: pl.DataFrame) -> pl.DataFrame:
    return attribution.sort(pl.col("attribution").abs(), descending=True, maintain_order=True)
