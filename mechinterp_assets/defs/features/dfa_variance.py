"""Direct feature attribution over a corpus: which heads and sources a feature's variation is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mechinterp_assets.orchestration.artefacts import open_sae
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from mechinterp_assets.attribution.dfa_variance import ActiveTokens


@tables(
    "feature_dfa_variance",
    reads=[
        *("language_model", "tokenized_corpus", "attention_sae"),
        *("feature_statistics", "feature_activations", "feature_dfa"),
    ],
    settings=["features.dfa_corpus_sequences", "features.intervals"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["feature_attribution"],
)
def feature_dfa_variance(run: Run) -> Made:
    """Sums over a corpus of what heads and sources add to features where they are active."""
    from mechinterp_assets.attribution.dfa_variance import dfa_variance

    settings = run.study.features
    statistics = run.frame("feature_statistics").sort("feature")
    frame = dfa_variance(
        run.model,
        open_sae(run),
        run.layer,
        _active_tokens(run, settings.dfa_corpus_sequences),
        statistics["max_activation"].fill_null(0).to_numpy(),
        _main_sources(run, statistics.height),
        n_intervals=settings.intervals,
    )
    return run.made({"feature_dfa_variance": frame})


# ---- private -------------------------------------------------------------------------------------


def _active_tokens(run: Run, count: int) -> Iterator[ActiveTokens]:
    """The first sequences in which some feature is active."""
    import torch

    from mechinterp_assets.attribution.dfa_variance import ActiveTokens

    activations = run.table("feature_activations")
    chosen = activations.select(pl.col("sequence").unique().sort().head(count)).collect()
    numbers = chosen["sequence"].implode()
    ids = dict(
        run.table("tokenized_corpus")
        .filter(pl.col("sequence").is_in(numbers))
        .select("sequence", "token_ids")
        .collect()
        .iter_rows()
    )
    rows = (
        activations.filter(pl.col("sequence").is_in(numbers))
        .select("sequence", "feature", "position", "activation")
        .sort("sequence", "feature", "position")
        .collect()
    )
    for (sequence,), own in rows.group_by(["sequence"], maintain_order=True):
        yield ActiveTokens(
            torch.tensor(ids[sequence]),
            own["feature"].cast(pl.Int64).to_torch(),
            own["position"].cast(pl.Int64).to_torch(),
            own["activation"].to_torch(),
        )


def _main_sources(run: Run, d_sae: int) -> NDArray[np.int64]:
    """Token that is the strongest source of most examples, by feature; -1 without examples.

    Of equally frequent ones the smallest id.
    """
    strongest = (
        run.table("feature_dfa")
        .select(
            "feature",
            "sequence",
            source=pl.col("dfa_by_source").list.slice(1).list.arg_max().cast(pl.Int64) + 1,
        )
        .collect()
    )
    tokens = (
        run.table("tokenized_corpus")
        .filter(pl.col("sequence").is_in(strongest["sequence"].unique().implode()))
        .select("sequence", "token_ids")
        .collect()
    )
    main = (
        strongest.join(tokens, on="sequence")
        .with_columns(token=pl.col("token_ids").list.get(pl.col("source")))
        .group_by("feature", "token")
        .len()
        .sort("feature", "len", "token", descending=[False, True, False])
        .unique("feature", keep="first", maintain_order=True)
    )
    found = np.full(d_sae, -1, dtype=np.int64)
    found[main["feature"].to_numpy()] = main["token"].to_numpy()
    return found
