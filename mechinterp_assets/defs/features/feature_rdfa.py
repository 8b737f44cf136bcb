"""Recursive attribution trees, from a feature through earlier layers to tokens.

Belongs here: which examples get a tree, and the SAEs of all layers before theirs. How trees are
made is in attribution/rdfa.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.defs.features.feature_pass import TokenLookup
from mechinterp_assets.orchestration.artefacts import SAE, open_residual_saes, open_sae
from mechinterp_assets.orchestration.reads import earlier
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Iterator, Sequence

    from mechinterp_assets.attribution.rdfa import InactiveFeatureError, Rdfa
    from mechinterp_assets.sae.base import SparseAutoencoder


@tables(
    "feature_rdfa",
    reads=[
        "language_model",
        "tokenized_corpus",
        "feature_statistics",
        "feature_families",
        *earlier("attention_sae", "feature_top_examples", "feature_logit_effects"),
    ],
    settings=["rdfa", "residual_sae"],
    files=["residual_sae.path"],
    seed="sae.seed",
    pool=GPU,
    kinds=["torch"],
    together=True,
    needs=["recursive_attribution"],
)
def feature_rdfa(run: Run) -> Iterator[Made]:
    """Trees of some features of each layer, through the SAEs of all layers before it."""
    from mechinterp_assets.attribution.rdfa import RDFA_SCHEMA, Rdfa

    settings, strings = run.study.rdfa, run.model.token_strings()
    saes: dict[int, SparseAutoencoder] = {}
    residual = open_residual_saes(run, max(run.layers) + 1)
    for layer in sorted(run.layers):
        own = run.at(layer)
        through = [m for m in run.study.layers if m <= layer]
        for m in through:
            _add_sae(saes, own, m)
        own.inputs.came_from(sae_version=saes[layer].weights_hash())
        rdfa = Rdfa(run.model, {m: saes[m] for m in through}, settings, residual=residual)
        named, chosen = _examples(own, rdfa)
        inactive: list[InactiveFeatureError] = []
        lookup = TokenLookup(
            own.table("tokenized_corpus"), pl.concat([named["sequence"], chosen["sequence"]])
        )
        trees = [
            *rdfa.trees(layer, named, lookup),
            *rdfa.trees(layer, chosen, lookup, on_inactive=inactive.append),
        ]
        for reason in inactive:
            run.log.warning(f"{own.partition}: no tree, {reason}")
        frame = pl.concat([pl.DataFrame(schema=RDFA_SCHEMA), *trees])
        frame = frame.sort("feature", "rank", "node")
        frame = _with_names(_with_tokens(frame, strings), own, through)
        roots = frame.filter(pl.col("parent").is_null())
        errors = frame.select(
            (pl.col("identity_error") / pl.col("dfa").first().over("feature", "rank")).abs()
        )
        yield own.made(
            {"feature_rdfa": frame},
            {
                "feature_rdfa": {
                    "trees": roots.height,
                    "examples_no_longer_active": len(inactive),
                    "layers_with_a_residual_sae": len(residual.by_layer),
                    "largest_relative_identity_error": _largest(errors.to_series()),
                }
            },
        )


# ---- private -------------------------------------------------------------------------------------


def _add_sae(saes: dict[int, SparseAutoencoder], own: Run, layer: int) -> None:
    """Open an SAE unless an earlier layer of the run has; its version is recorded either way."""
    if layer in saes:
        own.artefact(SAE, layer)
    else:
        saes[layer] = open_sae(own, layer)


def _examples(own: Run, rdfa: Rdfa) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of feature_top_examples that get a tree: those named in the study, and those chosen.

    Raises RdfaError for a named feature or example that is not there.
    """
    from mechinterp_assets.attribution.rdfa_selection import examples_of, selected_features

    settings, layer = own.study.rdfa, own.layer
    named = {(row.feature, row.rank) for row in settings.features if row.layer == layer}
    for feature, _ in sorted(named):
        rdfa.check(layer, feature)
    chosen: set[tuple[int, int]] = set()
    if layer > 0 and settings.per_layer:
        features = selected_features(
            own.frame("feature_statistics"),
            own.frame("feature_families"),
            settings.per_layer,
            settings.rule,
        )
        chosen = {(feature, 0) for feature in features} - named
    top = own.table("feature_top_examples").select("feature", "rank", "sequence", "position")
    return examples_of(top, named, required=True), examples_of(top, chosen)


def _largest(errors: pl.Series) -> float | None:
    found = errors.drop_nulls().to_numpy()
    return float(found.max()) if len(found) else None


def _with_tokens(frame: pl.DataFrame, strings: list[str]) -> pl.DataFrame:
    from mechinterp_assets.attribution.frames import token_texts

    known = frame["token_id"].fill_null(0).to_numpy()
    texts = token_texts(strings, known).alias("token")
    return frame.with_columns(pl.when(pl.col("token_id").is_not_null()).then(texts).alias("token"))


def _with_names(frame: pl.DataFrame, own: Run, layers: Sequence[int]) -> pl.DataFrame:
    """Columns strongest_token and promoted_token of feature nodes."""
    names = [pl.DataFrame(schema=_NAMES)]
    for layer in layers:
        used = frame.filter((pl.col("node_kind") == "feature") & (pl.col("at_layer") == layer))
        of_used = pl.col("feature").is_in(used["at_feature"].unique().implode())
        examples = own.table("feature_top_examples", layer).filter(of_used)
        effects = own.table("feature_logit_effects", layer).filter(of_used)
        texts = (
            examples.filter(pl.col("rank") == 0)
            .select("feature", strongest_token="token")
            .join(
                effects.filter((pl.col("rank") == 0) & (pl.col("extreme") == "top")).select(
                    "feature", promoted_token="token"
                ),
                on="feature",
                how="full",
                coalesce=True,
            )
            .select(
                pl.lit("feature").alias("node_kind"),
                pl.lit(layer, pl.Int32).alias("at_layer"),
                at_feature="feature",
                strongest_token="strongest_token",
                promoted_token="promoted_token",
            )
        )
        names.append(texts.collect())
    return frame.join(
        pl.concat(names),
        on=["node_kind", "at_layer", "at_feature"],
        how="left",
        maintain_order="left",
    )


_NAMES = pl.Schema(
    {
        "node_kind": pl.String(),
        "at_layer": pl.Int32(),
        "at_feature": pl.Int32(),
        "strongest_token": pl.String(),
        "promoted_token": pl.String(),
    }
)
