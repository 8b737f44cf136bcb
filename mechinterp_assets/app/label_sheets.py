"""Sheets for people to label: features of a layer, or heads with their top features, with links.

Belongs here: reading what a sheet needs from the lake. The sheets' formats are `labels/features.py`
and `labels/heads.py`.
"""

import polars as pl

from mechinterp_assets.dashboards.places import head_page, heads_folder
from mechinterp_assets.labels.features import label_sheet, sample_features
from mechinterp_assets.labels.files import LabelledSae
from mechinterp_assets.labels.heads import head_label_sheet, sample_heads
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.storage.home import dashboard_folder
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import Study, site_key


class SheetError(ValueError):
    """A sheet that cannot be made; the message says what to change or to materialize."""


def sheet_of(lake: Lake, study: Study, layer: int, n: int, seed: int) -> str:
    """CSV text with n of the features of a layer that fired, drawn with a seed.

    Raises:
        SheetError: the layer has no SAE or no feature tables yet, or n is not positive.
    """
    if n < 1:
        raise SheetError(f"n is {n}; draw at least one feature")
    key = _site(lake, study, layer, "attention_sae", "feature_statistics")
    sae = lake.read("attention_sae", key).collect().row(0, named=True)["weights_hash"]
    statistics = lake.read("feature_statistics", key)
    alive = statistics.filter(pl.col("n_active") > 0).select("feature").collect()["feature"]
    features = sample_features(alive.to_numpy().astype("int64"), n, seed)
    links: dict[int, str] = {}
    if lake.exists("feature_dashboards", key):
        pages = DashboardsResource(root=str(dashboard_folder())).url
        links = {f: pages(key, f"features/{f}.html") for f in features.tolist()}
    return label_sheet(study.study, layer, features, sae, links)


def head_sheet_of(lake: Lake, study: Study, layer: int | None, n: int | None, seed: int) -> str:
    """CSV text with the heads of a layer or of all layers, each with its top features that fired.

    Args:
        layer: None for all layers with an SAE.
        n: heads to draw with `seed`; None for all of them, in order.

    Raises:
        SheetError: a layer has no SAE or no head_features yet, or n is not positive.
    """
    if n is not None and n < 1:
        raise SheetError(f"n is {n}; draw at least one head")
    saes, frames = {}, []
    for number in study.layers if layer is None else [layer]:
        key = _site(lake, study, number, "attention_sae", "head_features")
        row = lake.read("attention_sae", key).collect().row(0, named=True)
        saes[number] = LabelledSae(row["d_sae"], row["weights_hash"])
        frames.append(lake.read("head_features", key).filter(pl.col("alive_rank").is_not_null()))
    features = pl.concat(pl.collect_all(frames)).sort("layer", "head", "alive_rank")
    heads = features.select("layer", "head").unique().rows()
    drawn = sample_heads(heads, len(heads) if n is None else n, seed)
    wanted = pl.DataFrame(drawn, schema={"layer": pl.Int32, "head": pl.Int32}, orient="row")
    links: dict[tuple[int, int], str] = {}
    if lake.exists("head_dashboards", study.study):
        pages = DashboardsResource(root=str(dashboard_folder())).url
        links = {
            (at, head): pages(heads_folder(study.study), head_page(at, head)) for at, head in drawn
        }
    return head_label_sheet(
        study.study,
        features.join(wanted, on=["layer", "head"], how="semi", maintain_order="left"),
        saes,
        links,
    )


# ---- private -------------------------------------------------------------------------------------


def _site(lake: Lake, study: Study, layer: int, *tables: str) -> str:
    """Key of a layer's site, which has rows of `tables`."""
    if layer not in study.layers:
        raise SheetError(
            f"layer {layer} has no SAE in {study.study}; layers with one: "
            f"{', '.join(map(str, study.layers))}"
        )
    key = site_key(study.study, layer)
    for table in tables:
        if not lake.exists(table, key):
            raise SheetError(f"{table} has no data for {key}; materialize it first")
    return key
