"""What follows from a layer's sparse activations alone.

Belongs here: the n-grams that features fire on, and the features they are active together with or
write alike. Does not belong here: the pass that makes the activations (feature_pass.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.defs.features.feature_pass import tokens_read
from mechinterp_assets.orchestration.artefacts import open_cache, open_sae
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Iterator

    from mechinterp_assets.attribution.activation_stream import TokenGrid

ROWS_AT_ONCE = 1_000_000


@tables(
    "feature_ngrams",
    "feature_neighbours",
    reads=[
        "language_model",
        "activation_cache",
        "attention_sae",
        "feature_statistics",
        "feature_activations",
    ],
    settings=["features.ngrams", "features.neighbours"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
)
def feature_relations(run: Run) -> Made:
    """n-grams of every feature, and its neighbours by co-activation and by decoder cosine."""
    from mechinterp_assets.attribution.neighbours import feature_neighbours
    from mechinterp_assets.attribution.ngrams import feature_ngrams

    settings, sae, tokens = run.study.features, open_sae(run), _tokens_of_the_pass(run)
    activations = run.table("feature_activations")
    ngrams = feature_ngrams(
        _stream(activations, "feature", "sequence", "position", "activation"),
        tokens,
        run.model.token_strings(),
        top=settings.ngrams,
    )
    neighbours = feature_neighbours(
        _stream(activations, "feature", "sequence", "position"),
        tokens,
        sae.W_dec,
        top=settings.neighbours,
    )
    return run.made(
        {"feature_ngrams": ngrams, "feature_neighbours": neighbours},
        {
            "feature_ngrams": {
                f"features_of_one_{n}-gram": ngrams.filter(
                    (pl.col("ngram_size") == n) & (pl.col("active_share") > 0.5)
                ).height
                for n in (1, 2, 3)
            },
            "feature_neighbours": {
                f"largest_{kind}": _largest(neighbours, kind)
                for kind in ("coactivation", "decoder_cosine")
            },
        },
    )


@tables(
    "feature_coactivation",
    reads=["language_model", "feature_statistics", "feature_activations"],
    settings=["features.coactivation", "features.coactivation_layers"],
    kinds=["scipy"],
)
def feature_coactivation(run: Run) -> Made:
    """Features of other layers that each feature is active together with."""
    from mechinterp_assets.attribution.coactivation import (
        feature_coactivation as find_coactivation,
    )

    layers = run.study.layers
    if len(layers) < 2:
        return run.nothing("the study has one SAE", "feature_coactivation")
    run.row("language_model")  # whose features they are
    statistics = run.table("feature_statistics")
    sizes = statistics.group_by("layer").agg(pl.len(), pl.col("n_tokens").max()).collect()
    if sizes["n_tokens"].n_unique() > 1:
        raise ValueError(
            f"features of layers {sizes['layer'].to_list()} were read over "
            f"{sizes['n_tokens'].to_list()} tokens; materialize their feature_statistics again"
        )
    last = run.table("feature_activations").select(pl.col("position").max()).collect().item()
    found = find_coactivation(
        layers,
        lambda layer: _stream(
            run.table("feature_activations", layer), "feature", "sequence", "position"
        ),
        dict(sizes.select("layer", "len").iter_rows()),
        int(sizes["n_tokens"][0]),
        1 + (last or 0),
        top=run.study.features.coactivation,
        reach=run.study.features.coactivation_layers,
    )
    return run.made(
        {"feature_coactivation": found},
        {"feature_coactivation": {"largest_phi": _maximum(found["phi"])}},
    )


# ---- private -------------------------------------------------------------------------------------


def _tokens_of_the_pass(run: Run) -> TokenGrid:
    statistics = run.table("feature_statistics").select("n_tokens").head(1).collect()
    return tokens_read(open_cache(run, None), int(statistics.item()))


def _stream(table: pl.LazyFrame, *columns: str) -> Iterator[pl.DataFrame]:
    """Some columns of a table in its stored order, some rows at a time."""
    yield from table.select(columns).collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True)


def _largest(neighbours: pl.DataFrame, kind: str) -> float | None:
    return _maximum(neighbours.filter(pl.col("measure") == kind)["similarity"])


def _maximum(values: pl.Series) -> float | None:
    return float(values.to_numpy().max()) if len(values) else None
