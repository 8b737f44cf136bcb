"""Group `features`, meaning: families of features, proxies from the study file, people's labels."""

import hashlib
from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.features.corpus_tokens import CorpusTokens
from mechinterp_assets.features.families import LayerTables
from mechinterp_assets.features.families import feature_families as measure_families
from mechinterp_assets.features.induction import induction_test
from mechinterp_assets.features.sparse_activations import feature_blocks
from mechinterp_assets.features.specificity import compare_with_proxies
from mechinterp_assets.labels.features import label_summary, read_labels
from mechinterp_assets.labels.files import LabelledSae
from mechinterp_assets.orchestration.head_roles import heads_with_role
from mechinterp_assets.orchestration.publishing import Inputs, Publisher
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site
from mechinterp_assets.orchestration.specs import table_asset
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.proxies import study_proxies

GROUP = "features"
STUDY_TABLES = ["language_model", "tokenized_corpus", "vocabulary"]


@dg.multi_asset(
    name="feature_families",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=[*STUDY_TABLES, "head_scores"],
            site_deps=[
                "attention_sae",
                "feature_statistics",
                "feature_activations",
                "feature_logit_effects",
                "feature_head_attribution",
                "feature_dfa",
            ],
        )
        for name in ("feature_families", "induction_test")
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def feature_families(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
) -> Iterator[dg.MaterializeResult[None]]:
    """What speaks for each feature being an induction, context, name mover, ... feature."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        inputs = Inputs(lake, tensors, study)
        read = _LayerInputs(inputs, key)
        families = measure_families(
            read.activation_blocks(),
            LayerTables(
                tokens=read.tokens,
                token_strings=read.token_strings,
                head_attribution=inputs.table("feature_head_attribution", key).collect(),
                logit_effects=inputs.table("feature_logit_effects", key).collect(),
                dfa=inputs.table("feature_dfa", key).collect(),
                induction_heads=_induction_heads(inputs, layer),
                seed=study.sae.seed,
            ),
        )
        test = induction_test(families)
        on_site = pl.lit(layer, pl.Int32).alias("layer")
        labelled = (
            families.filter(pl.col("required"))
            .group_by("family", "feature")
            .agg(pl.col("meets_threshold").fill_null(False).all())
            .filter(pl.col("meets_threshold"))["family"]
            .value_counts()
            .sort("family")
        )
        publisher.publish(
            key,
            inputs,
            {
                "feature_families": families.with_columns(on_site),
                "induction_test": test.with_columns(on_site),
            },
            {
                "feature_families": {
                    f"features_{name}": float(count) for name, count in labelled.iter_rows()
                },
                "induction_test": {
                    f"{row['feature_group']}_passed": f"{row['n_passed']} of {row['n_tested']}"
                    for row in test.filter(pl.col("measure") == "induction_behaviour").to_dicts()
                },
            },
        )
    yield from publisher.results()


@dg.multi_asset(
    name="feature_proxies",
    specs=[
        table_asset(
            name,
            per="site",
            group=GROUP,
            study_deps=STUDY_TABLES,
            site_deps=[
                "attention_sae",
                "feature_statistics",
                "feature_activations",
                "feature_logit_effects",
            ],
        )
        for name in ("feature_proxies", "feature_proxy_histogram")
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def feature_proxies(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
) -> Iterator[dg.MaterializeResult[None]]:
    """Where the study's proxies are true and each feature active; no rows without proxies."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        inputs = Inputs(lake, tensors, study)
        inputs.settings("features")
        read = _LayerInputs(inputs, key)
        promoted = (
            inputs.table("feature_logit_effects", key)
            .filter((pl.col("extreme") == "top") & (pl.col("rank") == 0))
            .select("feature", "token_id")
            .collect()
        )
        result = compare_with_proxies(
            read.activation_blocks(),
            study_proxies(study),
            read.tokens,
            read.token_strings,
            dict(promoted.iter_rows()),
            n_intervals=study.features.intervals,
            only={
                proxy.name: proxy.features.get(layer, [])
                for proxy in study.features.proxies
                if proxy.features is not None
            },
        )
        on_site = pl.lit(layer, pl.Int32).alias("layer")
        mass = result.proxies.group_by("proxy", maintain_order=True).agg(
            (pl.col("activation_sum_true") / pl.col("activation_sum")).max().alias("best")
        )
        publisher.publish(
            key,
            inputs,
            {
                "feature_proxies": result.proxies.with_columns(on_site),
                "feature_proxy_histogram": result.histogram.with_columns(on_site),
            },
            {
                "feature_proxies": {
                    f"best_mass_specificity: {name}": float(best) for name, best in mass.iter_rows()
                }
            },
        )
    yield from publisher.results()


@dg.multi_asset(
    name="feature_labels",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=["language_model"],
            site_deps=["attention_sae"],
            kinds=["csv"],
        )
        for name in ("feature_labels", "feature_label_summary")
    ],
    partitions_def=PARTITIONS.studies,
)
def feature_labels(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
) -> Iterator[dg.MaterializeResult[None]]:
    """Labels from the study's CSV files, checked; and shares of features called interpretable."""
    study = STUDIES[context.partition_key]
    inputs = Inputs(lake, tensors, study)
    model = inputs.table("language_model", study.study).collect().row(0, named=True)
    inputs.model_version = model["weights_hash"]
    rows = [inputs.table("attention_sae", key).collect().row(0, named=True) for key in study.sites]
    saes = {row["layer"]: LabelledSae(row["d_sae"], row["weights_hash"]) for row in rows}
    files = {path.name: path.read_text(encoding="utf-8") for path in study.labels}
    for name, text in files.items():
        inputs.versions[f"labels:{name}"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    labels = read_labels(files, study.study, saes)
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"feature_labels": labels, "feature_label_summary": label_summary(labels)},
        {"feature_labels": {"raters": float(labels["rater"].n_unique())}},
    )
    yield from publisher.results()


# ---- private -------------------------------------------------------------------------------------


class _LayerInputs:
    """What every asset over the activations of a site reads; sets the inputs' versions."""

    def __init__(self, inputs: Inputs, key: str) -> None:
        study = inputs.study.study
        model = inputs.table("language_model", study).collect().row(0, named=True)
        sae = inputs.table("attention_sae", key).collect().row(0, named=True)
        inputs.model_version, inputs.sae_version = model["weights_hash"], sae["weights_hash"]
        self._statistics = inputs.table("feature_statistics", key).collect()
        self._activations = inputs.table("feature_activations", key)
        vocabulary = inputs.table("vocabulary", study).sort("token_id").select("token")
        self.token_strings: list[str] = vocabulary.collect()["token"].to_list()
        n_tokens = int(self._statistics["n_tokens"][0])
        # BOS alone is left out, so sequences hold nearly all their tokens: twice as many do.
        sequences = 2 * (n_tokens // inputs.study.corpus.context_size + 1)
        self.tokens = CorpusTokens.of_pass(
            inputs.table("tokenized_corpus", study)
            .select("sequence", "token_ids")
            .sort("sequence")
            .head(sequences)
            .collect(),
            bos_token_id=model["bos_token_id"],
            n_tokens=n_tokens,
        )

    def activation_blocks(self) -> Iterator[pl.DataFrame]:
        """Activations in blocks of whole features."""

        def read(first: int, last: int) -> pl.DataFrame:
            return (
                self._activations.filter(pl.col("feature").is_between(first, last))
                .select("feature", "sequence", "position", "activation")
                .collect()
            )

        return feature_blocks(self._statistics, read)


def _induction_heads(inputs: Inputs, layer: int) -> list[int]:
    """Heads of the layer with the role induction."""
    scores = inputs.table("head_scores", inputs.study.study).collect()
    return [head for at, head in heads_with_role("induction", scores) if at == layer]
