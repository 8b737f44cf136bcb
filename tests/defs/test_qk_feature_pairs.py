"""Scores by pairs of features in a study: heads by role or its fallback, sums, task names."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import polars as pl
import pytest
import torch

from mechinterp_assets.defs.circuits.qk_features import _residual_saes
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.run import Run
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.settings import ResidualSaeSettings
from tests.defs.conftest import Materialized
from tests.foreign_sae import write_residual


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


def test_residual_saes_are_those_of_the_studys_layers_or_of_qk_features_alone(
    tiny: Materialized, organism: LanguageModel, tmp_path: Path
) -> None:
    """Of the section residual_sae some layers have one; a folder for keys alone that lacks a head's
    layer is refused."""
    d_model = organism.config.d_model
    W, zeros = torch.eye(d_model), torch.zeros(d_model)
    sae = StandardSAE(W, zeros, W.clone(), zeros.clone())
    write_residual(tmp_path / "resid3", sae, 3)
    path = str(tmp_path / "resid{layer}")
    named = tiny.study.residual_sae.with_changes(path=path, layers=[3])

    def opened(residual_sae: ResidualSaeSettings) -> set[int]:
        own = tiny.study.qk_features.with_changes(residual_sae=path)
        study = tiny.study.model_copy(update={"qk_features": own, "residual_sae": residual_sae})
        run = SimpleNamespace(study=study, model=organism)
        return set(_residual_saes(cast(Run, run), {3, 4}))

    assert opened(named) == {3}
    with pytest.raises(SaeError, match="resid4"):
        opened(tiny.study.residual_sae)
