"""Trees of the tiny study, whose layer 1 has no SAE: rows, names, pages in bulk and on request."""

import re

import polars as pl
import pytest

from mechinterp_assets.app.queries import find_query
from mechinterp_assets.dashboards.live.feature_pages import LivePages
from tests.defs.conftest import Materialized

SITE = "tiny.L02"


@pytest.fixture(scope="module")
def trees(tiny: Materialized) -> pl.DataFrame:
    return tiny.lake.read("feature_rdfa", SITE).collect()


def test_named_and_chosen_features_have_trees(tiny: Materialized, trees: pl.DataFrame) -> None:
    rdfa = tiny.study.rdfa
    roots = trees.filter(pl.col("parent").is_null())
    top = tiny.lake.read("feature_top_examples", SITE).collect()
    keys = ["feature", "rank", "sequence", "position"]
    assert roots.join(top, on=keys, how="semi").height == roots.height > 0
    named = {(f.feature, f.rank) for f in rdfa.features if f.layer == 2}
    assert named <= set(roots.select("feature", "rank").rows())
    assert roots.height <= rdfa.per_layer + len(named)
    assert tiny.lake.read("feature_rdfa", "tiny.L00").collect().is_empty()


def test_the_root_is_near_the_activation_of_the_cache(
    tiny: Materialized, trees: pl.DataFrame
) -> None:
    """The cache holds z in bfloat16, the tree starts from a forward pass in float32."""
    top = tiny.lake.read("feature_top_examples", SITE).collect()
    keys = ["feature", "rank"]
    both = trees.filter(node=0).join(top, on=keys, suffix="_stored")
    assert both["dfa"].to_list() == pytest.approx(both["activation_stored"].to_list(), rel=0.03)
    assert (both["token"] == both["token_stored"]).all()


def test_levels_sum_and_layers_without_an_sae_stay_whole(trees: pl.DataFrame) -> None:
    key = ["feature", "rank"]
    parts = (
        trees.drop_nulls("parent")
        .group_by(*key, pl.col("parent").alias("node"))
        .agg(total=pl.col("dfa").sum(), size=pl.col("dfa").abs().sum())
    )
    joined = parts.join(trees, on=[*key, "node"])
    assert joined.height == parts.height
    error = (joined["total"] - joined["dfa"]).abs() / joined["size"]
    assert float(error.to_numpy().max()) < 1e-5
    attention = trees.filter(node_kind="attention")
    assert (
        attention.filter(at_layer=1)["identity_error"].null_count()
        == attention.filter(at_layer=1).height
    )
    features = trees.filter(node_kind="feature")
    assert set(features["at_layer"]) <= {0, 2}
    assert features["strongest_token"].null_count() == 0


def test_pages_in_bulk_and_on_request_differ_in_links_alone(
    tiny: Materialized, trees: pl.DataFrame
) -> None:
    pages = LivePages(tiny.lake)
    folder = tiny.home / "dashboards" / SITE / "trees"
    with_tree = sorted(trees["feature"].unique().to_list())
    assert sorted(int(path.stem) for path in folder.iterdir()) == with_tree
    for feature in with_tree:
        live = pages.tree(SITE, feature)
        assert live is not None
        unlinked = re.sub(
            r'<a href="\.\./\.\./tiny\.L00/features/\d+\.html">([^<]*)</a>', r"\1", live
        )
        assert unlinked == (folder / f"{feature}.html").read_text()
        page = (tiny.home / "dashboards" / SITE / "features" / f"{feature}.html").read_text()
        assert f"../trees/{feature}.html" in page
    without = next(f for f in range(128) if f not in with_tree)
    assert pages.tree(SITE, without) is None
    assert pages.tree("tiny.L00", 0) is None


def test_what_features_are_made_of_adds_up(tiny: Materialized, trees: pl.DataFrame) -> None:
    found = tiny.lake.query(find_query("29_what_features_are_made_of").sql, "tiny")
    first = trees.filter((pl.col("rank") == 0) & (pl.col("node") == 0))
    assert len(found) == len(first)
    parts = found.select(pl.exclude("feature", "strongest_earlier_feature", "its_share"))
    totals = parts.sum_horizontal(ignore_nulls=True)
    assert totals.to_list() == pytest.approx([1.0] * len(found), abs=0.04)  # rounded to 0.01 each
