"""Scores by pairs of features in a study: heads by role or its fallback, sums, task names."""

import polars as pl

from tests.defs.conftest import Materialized


def test_heads_are_those_that_attend_to_io_most(tiny: Materialized) -> None:
    pairs = tiny.lake.read("qk_feature_pairs", "tiny").collect()
    scores = tiny.lake.read("ioi_head_scores", "tiny").collect().filter(score="ioi_attention_io")
    most = scores.sort("value", descending=True).head(tiny.study.qk_features.max_heads)
    chosen = set(pairs.select("layer", "head").unique().rows())
    assert chosen == set(most.select("layer", "head").rows())
    assert set(pairs["chosen_by"]) == {"largest ioi_attention_io; no head has the role name_mover"}
    assert set(pairs["task"]) == {"ioi"}


def test_tables_add_up_to_the_same_scores(tiny: Materialized) -> None:
    key = ["layer", "head", "source_role"]
    pairs = tiny.lake.read("qk_feature_pairs", "tiny").collect()
    kinds = tiny.lake.read("qk_feature_kinds", "tiny").collect()
    summary = tiny.lake.read("qk_feature_summary", "tiny").collect()
    sums = (
        pairs.group_by(key)
        .agg(pl.col("mean", "covariance_share").sum(), pl.col("mean_score").first())
        .join(kinds.group_by(key).agg(of_kinds=pl.col("mean").sum()), on=key)
        .join(summary.group_by(key).agg(of_summary=pl.col("mean_score").first()), on=key)
    )
    assert len(sums) == 2 * 5
    for row in sums.iter_rows(named=True):
        assert abs(row["mean"] - row["mean_score"]) < 1e-4
        assert abs(row["of_kinds"] - row["mean_score"]) < 1e-4
        assert row["of_summary"] == row["mean_score"]
        assert abs(row["covariance_share"] - 1) < 1e-4
    # Layers 0 and 2 have SAEs, so that layer 1's attention stays whole.
    split = set(kinds.filter(query_kind="feature")["query_layer"])
    assert split <= {0, 2}
    assert set(kinds.filter(query_kind="attention")["query_layer"]).isdisjoint(split)


def test_a_task_without_answers_has_kl_and_nothing_else(tiny: Materialized) -> None:
    effects = tiny.lake.read("task_head_effects", "tiny").collect().filter(task="openings")
    shape = tiny.lake.read("language_model", "tiny").collect().row(0, named=True)
    modes = tiny.study.task_effects.ablations
    assert len(effects) == len(modes) * shape["n_layers"] * shape["n_heads"]
    assert set(effects["metric"]) == {"kl"}
    assert effects["null_ratio"].null_count() == 0
    assert (effects["mean_effect"] > 0).any()
    baseline = tiny.lake.read("task_baseline", "tiny").collect().filter(task="openings")
    assert baseline["loss"].null_count() == baseline["is_top1"].null_count() == len(baseline) == 3
