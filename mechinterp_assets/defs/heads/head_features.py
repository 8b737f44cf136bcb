"""Group `heads`: heads through their features and examples, and what people call them.

Scores of heads are in heads.py, pages in head_dashboards.py.
"""

import hashlib
from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.defs.heads.head_scores import GROUP
from mechinterp_assets.defs.saes.attention_sae import open_sae
from mechinterp_assets.heads.attention_examples import (
    head_attention_examples as find_attention_examples,
)
from mechinterp_assets.heads.head_features import head_features as rank_features
from mechinterp_assets.heads.polysemanticity import ProxySettings, head_polysemanticity_proxy
from mechinterp_assets.labels.files import LabelledSae
from mechinterp_assets.labels.heads import head_label_summary, read_head_labels
from mechinterp_assets.orchestration.publishing import (
    Inputs,
    Metadata,
    Publisher,
    inputs_with_model,
)
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors


@dg.multi_asset(
    name="head_features",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=["language_model"],
            site_deps=[
                "attention_sae",
                "feature_head_attribution",
                "feature_statistics",
                "feature_ngrams",
                "feature_logit_effects",
            ],
            kinds=["torch"],
        )
        for name in ("head_features", "head_polysemanticity_proxy")
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def head_features(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """The features that each head writes most, and clusters among them as a proxy of its roles."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        settings = study.heads
        compute.prepare(settings.seed)
        inputs, model = inputs_with_model(lake, tensors, models, study, "heads")
        sae = open_sae(inputs, key, model)
        statistics = inputs.table("feature_statistics", key).collect()
        ngrams = inputs.table("feature_ngrams", key).collect()
        top = rank_features(
            inputs.table("feature_head_attribution", key).collect(),
            statistics,
            ngrams,
            inputs.table("feature_logit_effects", key).collect(),
            layer=layer,
            top=settings.top_features,
        )
        alive = top.filter(pl.col("alive_rank") < settings.top_features).sort("head", "alive_rank")
        proxy = head_polysemanticity_proxy(
            sae.W_dec.detach().cpu().numpy(),
            {
                int(head[0]): part["feature"].to_list()
                for head, part in alive.partition_by("head", as_dict=True).items()
            },
            statistics,
            ngrams,
            layer=layer,
            n_heads=model.config.n_heads,
            settings=ProxySettings(
                slice_threshold=settings.slice_similarity,
                ngram_threshold=settings.ngram_similarity,
                n_draws=settings.similarity_draws,
                seed=settings.seed,
            ),
        )
        publisher.publish(
            key,
            inputs,
            {"head_features": top, "head_polysemanticity_proxy": proxy},
            {"head_polysemanticity_proxy": _mean_clusters(proxy)},
        )
    yield from publisher.results()


@dg.multi_asset(
    name="head_attention_examples",
    specs=[
        table_asset(
            "head_attention_examples",
            per="study",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def head_attention_examples(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Held-out sequences in which each head attends most strongly to another token."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.heads.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "heads")
    held_out = (
        inputs.table("tokenized_corpus", study.study)
        .filter(pl.col("split") == "held_out")
        .sort("sequence")
        .head(study.heads.sequences)
        .select("sequence", "token_ids")
        .collect()
    )
    examples = find_attention_examples(model, held_out, top=study.heads.attention_examples)
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"head_attention_examples": examples},
        {"head_attention_examples": {"sequences": float(held_out.height)}},
    )
    yield from publisher.results()


@dg.multi_asset(
    name="head_labels",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=["language_model"],
            site_deps=["attention_sae"],
            kinds=["csv"],
        )
        for name in ("head_labels", "head_label_summary")
    ],
    partitions_def=PARTITIONS.studies,
)
def head_labels(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
) -> Iterator[dg.MaterializeResult[None]]:
    """Classes of heads from the study's CSV files, checked; and the share of each class."""
    study = STUDIES[context.partition_key]
    inputs = Inputs(lake, tensors, study)
    model = inputs.table("language_model", study.study).collect().row(0, named=True)
    inputs.model_version = model["weights_hash"]
    rows = [inputs.table("attention_sae", key).collect().row(0, named=True) for key in study.sites]
    saes = {row["layer"]: LabelledSae(row["d_sae"], row["weights_hash"]) for row in rows}
    files = {path.name: path.read_text(encoding="utf-8") for path in study.head_labels}
    for name, text in files.items():
        inputs.versions[f"head_labels:{name}"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    labels = read_head_labels(files, study.study, model["n_heads"], saes)
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"head_labels": labels, "head_label_summary": head_label_summary(labels)},
        {"head_labels": {"raters": float(labels["rater"].n_unique())}},
    )
    yield from publisher.results()


def _mean_clusters(proxy: pl.DataFrame) -> Metadata:
    """Mean number of clusters per measure, the heads' beside the null's."""
    means = proxy.group_by("measure").agg(pl.col("n_clusters", "null_n_clusters").mean())
    return {
        f"clusters_{row['measure']}": f"{row['n_clusters']:.2f} (null {row['null_n_clusters']:.2f})"
        for row in means.sort("measure").to_dicts()
    }
