"""Features removed from text: where the loss rises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mechinterp_assets.orchestration.artefacts import open_sae
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mechinterp_assets.attribution.feature_loss import AblatedFeature


@tables(
    "feature_loss",
    reads=[
        *("language_model", "tokenized_corpus", "attention_sae"),
        *("feature_statistics", "feature_activations", "feature_logit_effects"),
        "feature_families",
    ],
    settings=["features.loss_features", "features.loss_sequences"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["direct_effects"],
)
def feature_loss(run: Run) -> Made:
    """Loss with and without single features, by whether their token is due; sampled."""
    from mechinterp_assets.attribution.feature_loss import feature_loss as measure

    seed = run.study.sae.seed
    frame = measure(run.model, open_sae(run), run.layer, _features(run, seed))
    passes = int(frame.unique("feature")["forward_passes"].sum())
    return run.made({"feature_loss": frame}, {"feature_loss": {"forward_passes": passes}})


# ---- private -------------------------------------------------------------------------------------


def _features(run: Run, seed: int) -> Iterator[AblatedFeature]:
    """The features to remove, each with its sequences."""
    import torch

    from mechinterp_assets.attribution.feature_loss import AblatedFeature
    from mechinterp_assets.corpora.token_documents import Separator, token_documents
    from mechinterp_assets.corpora.tokenize import token_matrix

    separator = Separator(run.model.bos_token_id, run.model.bos.prepended)
    settings = run.study.features
    chosen = _chosen(run).head(settings.loss_features)
    for row in chosen.iter_rows(named=True):
        sequences = (
            run.table("feature_activations")
            .filter(pl.col("feature") == row["feature"])
            .select(pl.col("sequence").unique().sort())
            .collect()["sequence"]
        )
        generator = np.random.default_rng([seed, run.layer, row["feature"]])
        count = min(settings.loss_sequences, len(sequences))
        drawn = sequences.gather(np.sort(generator.choice(len(sequences), count, replace=False)))
        drawn_text = (
            run.table("tokenized_corpus")
            .filter(pl.col("sequence").is_in(drawn.implode()))
            .sort("sequence")
            .select("documents", "token_ids")
            .collect()
        )
        yield AblatedFeature(
            feature=row["feature"],
            promoted_token_id=row["token_id"],
            token_ids=torch.from_numpy(token_matrix(drawn_text)),
            n_active_sequences=len(sequences),
            chosen_by=row["chosen_by"],
            documents=token_documents(drawn_text, separator),
        )


def _chosen(run: Run) -> pl.DataFrame:
    """Features that fired and promote a token: the family induction first, then by activation."""
    induction = (
        run.frame("feature_families")
        .filter((pl.col("family") == "induction") & pl.col("required"))
        .group_by("feature")
        .agg(pl.col("meets_threshold").fill_null(False).all().alias("induction"))
    )
    promoted = (
        run.table("feature_logit_effects")
        .filter((pl.col("extreme") == "top") & (pl.col("rank") == 0))
        .select("feature", "token_id")
        .collect()
    )
    return (
        run.frame("feature_statistics")
        .filter(pl.col("n_active") > 0)
        .join(promoted, on="feature")
        .join(induction, on="feature", how="left")
        .with_columns(
            induction=pl.col("induction").fill_null(False),
            summed=pl.col("n_active") * pl.col("mean_activation"),
        )
        .sort("induction", "summed", "feature", descending=[True, True, False])
        .select(
            "feature",
            "token_id",
            chosen_by=pl.when("induction")
            .then(pl.lit("induction"))
            .otherwise(pl.lit("activation")),
        )
    )
