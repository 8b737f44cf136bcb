"""Group `features`: recursive attribution trees, from a feature through earlier layers to tokens.

Belongs here: which examples get a tree, and the SAEs of all layers before theirs. How trees are
made is in attribution/rdfa.py.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.attribution.frames import token_texts
from mechinterp_assets.attribution.rdfa import (
    RDFA_SCHEMA,
    InactiveFeatureError,
    Rdfa,
    RdfaSettings,
)
from mechinterp_assets.attribution.rdfa_selection import examples_of, selected_features
from mechinterp_assets.defs.features.feature_pass import GROUP, TokenLookup
from mechinterp_assets.defs.saes.attention_sae import SAE_KIND, open_sae
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, sites_by_study
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study import Study, parse_site, site_key


@dg.multi_asset(
    name="feature_rdfa",
    specs=[
        table_asset(
            "feature_rdfa",
            per="site",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            site_deps=["feature_statistics", "feature_families"],
            earlier_site_deps=["attention_sae", "feature_top_examples", "feature_logit_effects"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=GPU_POOL,
)
def feature_rdfa(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Trees of some features of each layer, through the SAEs of all layers before it."""
    publisher = Publisher(context, lake)
    for name, keys in sites_by_study(context.partition_keys).items():
        study = STUDIES[name]
        settings = RdfaSettings(
            max_depth=study.rdfa.max_depth,
            branching=study.rdfa.branching,
            min_share=study.rdfa.min_share,
            max_nodes=study.rdfa.max_nodes,
            by_head=study.rdfa.by_head,
        )
        saes: dict[int, SparseAutoencoder] = {}
        for key in sorted(keys):
            _, layer = parse_site(key)
            compute.prepare(study.sae.seed)
            inputs, model = inputs_with_model(lake, tensors, models, study, "rdfa")
            earlier = [site_key(name, m) for m in study.layers if m < layer]
            for site in (*earlier, key):
                _add_sae(saes, inputs, site, model)
            inputs.sae_version = saes[layer].weights_hash()
            rdfa = Rdfa(model, {m: sae for m, sae in saes.items() if m <= layer}, settings)
            named, chosen = _examples(inputs, study, key, layer, rdfa)
            inactive: list[InactiveFeatureError] = []
            lookup = TokenLookup(
                inputs.table("tokenized_corpus", name).select("sequence", "token_ids"),
                pl.concat([named["sequence"], chosen["sequence"]]),
            )
            trees = [
                *rdfa.trees(layer, named, lookup),
                *rdfa.trees(layer, chosen, lookup, on_inactive=inactive.append),
            ]
            for reason in inactive:
                context.log.warning(f"{key}: no tree, {reason}")
            frame = pl.concat([pl.DataFrame(schema=RDFA_SCHEMA), *trees])
            frame = frame.sort("feature", "rank", "node")
            frame = _with_tokens(frame, model.token_strings())
            frame = _with_names(frame, inputs, [*earlier, key])
            roots = frame.filter(pl.col("parent").is_null())
            errors = frame.select(
                (pl.col("identity_error") / pl.col("dfa").first().over("feature", "rank")).abs()
            )
            publisher.publish(
                key,
                inputs,
                {"feature_rdfa": frame.with_columns(layer=pl.lit(layer, pl.Int32))},
                {
                    "feature_rdfa": {
                        "trees": roots.height,
                        "examples_no_longer_active": len(inactive),
                        "largest_relative_identity_error": _largest(errors.to_series()),
                    }
                },
            )
    yield from publisher.results()


def _add_sae(
    saes: dict[int, SparseAutoencoder], inputs: Inputs, key: str, model: LanguageModel
) -> None:
    """Open an SAE unless an earlier site of the run has; its version is recorded either way."""
    _, layer = parse_site(key)
    if layer in saes:
        inputs.artefact(SAE_KIND, key)
    else:
        saes[layer] = open_sae(inputs, key, model)


def _examples(
    inputs: Inputs, study: Study, key: str, layer: int, rdfa: Rdfa
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of feature_top_examples that get a tree: those named in the study, and those chosen.

    Raises RdfaError for a named feature or example that is not there.
    """
    named = {(row.feature, row.rank) for row in study.rdfa.features if row.layer == layer}
    for feature, _ in sorted(named):
        rdfa.check(layer, feature)
    chosen: set[tuple[int, int]] = set()
    if layer > 0 and study.rdfa.per_layer:
        features = selected_features(
            inputs.table("feature_statistics", key).collect(),
            inputs.table("feature_families", key).collect(),
            study.rdfa.per_layer,
            study.rdfa.rule,
        )
        chosen = {(feature, 0) for feature in features} - named
    top = inputs.table("feature_top_examples", key).select(
        "feature", "rank", "sequence", "position"
    )
    return examples_of(top, named, required=True), examples_of(top, chosen)


def _largest(errors: pl.Series) -> float | None:
    found = errors.drop_nulls().to_numpy()
    return float(found.max()) if len(found) else None


def _with_tokens(frame: pl.DataFrame, strings: list[str]) -> pl.DataFrame:
    known = frame["token_id"].fill_null(0).to_numpy()
    texts = token_texts(strings, known).alias("token")
    return frame.with_columns(pl.when(pl.col("token_id").is_not_null()).then(texts).alias("token"))


def _with_names(frame: pl.DataFrame, inputs: Inputs, keys: list[str]) -> pl.DataFrame:
    """Columns strongest_token and promoted_token of feature nodes."""
    names = [pl.DataFrame(schema=_NAMES)]
    for key in keys:
        _, layer = parse_site(key)
        used = frame.filter((pl.col("node_kind") == "feature") & (pl.col("at_layer") == layer))
        of_used = pl.col("feature").is_in(used["at_feature"].unique().implode())
        examples = inputs.table("feature_top_examples", key).filter(of_used)
        effects = inputs.table("feature_logit_effects", key).filter(of_used)
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
                pl.lit(layer, pl.Int32).alias("at_layer"),
                at_feature="feature",
                strongest_token="strongest_token",
                promoted_token="promoted_token",
            )
        )
        names.append(texts.collect())
    return frame.join(
        pl.concat(names), on=["at_layer", "at_feature"], how="left", maintain_order="left"
    )


_NAMES = pl.Schema(
    {
        "at_layer": pl.Int32(),
        "at_feature": pl.Int32(),
        "strongest_token": pl.String(),
        "promoted_token": pl.String(),
    }
)
