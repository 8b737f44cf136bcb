"""Sheets for people to label: a random sample of a layer's features, with links to their pages.

Belongs here: reading what a sheet needs from the lake. The sheet's format is `features/labels.py`.
"""

import polars as pl

from mechinterp_assets.features.labels import label_sheet, sample_features
from mechinterp_assets.home import dashboard_folder
from mechinterp_assets.study import Study, site_key
from resources.dashboards import DashboardsResource
from resources.lake import Lake


class SheetError(ValueError):
    """A sheet that cannot be made; the message says what to change or to materialize."""


def sheet_of(lake: Lake, study: Study, layer: int, n: int, seed: int) -> str:
    """CSV text with n of the features of a layer that fired, drawn with a seed.

    Raises:
        SheetError: the layer has no SAE or no feature tables yet, or n is not positive.
    """
    if n < 1:
        raise SheetError(f"n is {n}; draw at least one feature")
    if layer not in study.layers:
        raise SheetError(
            f"layer {layer} has no SAE in {study.study}; layers with one: "
            f"{', '.join(map(str, study.layers))}"
        )
    key = site_key(study.study, layer)
    for table in ("attention_sae", "feature_statistics"):
        if not lake.exists(table, key):
            raise SheetError(f"{table} has no data for {key}; materialize it first")
    sae = lake.read("attention_sae", key).collect().row(0, named=True)["weights_hash"]
    statistics = lake.read("feature_statistics", key)
    alive = statistics.filter(pl.col("n_active") > 0).select("feature").collect()["feature"]
    features = sample_features(alive.to_numpy().astype("int64"), n, seed)
    links: dict[int, str] = {}
    if lake.exists("feature_dashboards", key):
        pages = DashboardsResource(root=str(dashboard_folder())).url
        links = {f: pages(key, f"features/{f}.html") for f in features.tolist()}
    return label_sheet(study.study, layer, features, sae, links)
