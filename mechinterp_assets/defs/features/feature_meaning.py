"""What features mean: families, proxies from the study file, people's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.features.named_proxies import named_proxies
from mechinterp_assets.labels.features import label_summary, read_labels
from mechinterp_assets.labels.files import read_label_files
from mechinterp_assets.orchestration.head_roles import heads_with_role
from mechinterp_assets.orchestration.labelled_saes import labelled_saes
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# What every asset over the activations of a layer reads; see _LayerInputs.
LAYER_INPUTS = (
    *("language_model", "tokenized_corpus", "vocabulary", "attention_sae"),
    "activation_outliers",
    *("feature_statistics", "feature_activations"),
)


@tables(
    "feature_families",
    "induction_test",
    reads=[
        *LAYER_INPUTS,
        "head_scores",
        "feature_logit_effects",
        "feature_head_attribution",
        "feature_dfa",
    ],
    settings=["sae.seed", "corpus.context_size"],
    needs=["direct_effects", "feature_attribution"],
)
def feature_families(run: Run) -> Made:
    """What speaks for each feature being an induction, context, name mover, ... feature."""
    from mechinterp_assets.features.families import LayerTables
    from mechinterp_assets.features.families import feature_families as measure_families
    from mechinterp_assets.features.induction import induction_test

    read = _LayerInputs(run)
    families = measure_families(
        read.activation_blocks(),
        LayerTables(
            tokens=read.tokens,
            token_strings=read.token_strings,
            head_attribution=run.frame("feature_head_attribution"),
            logit_effects=run.frame("feature_logit_effects"),
            dfa=run.frame("feature_dfa"),
            induction_heads=_induction_heads(run),
            seed=run.study.sae.seed,
        ),
    )
    test = induction_test(families)
    labelled = (
        families.filter(pl.col("required"))
        .group_by("family", "feature")
        .agg(pl.col("meets_threshold").fill_null(False).all())
        .filter(pl.col("meets_threshold"))["family"]
        .value_counts()
        .sort("family")
    )
    return run.made(
        {"feature_families": families, "induction_test": test},
        {
            "feature_families": {
                f"features_{name}": float(count) for name, count in labelled.iter_rows()
            },
            "induction_test": {
                f"{row['feature_group']}_passed": f"{row['n_passed']} of {row['n_tested']}"
                for row in test.filter(pl.col("measure") == "induction_per_occurrence").to_dicts()
            },
        },
    )


@tables(
    "feature_proxies",
    "feature_proxy_histogram",
    "feature_proxy_examples",
    reads=[*LAYER_INPUTS, "feature_logit_effects"],
    settings=[
        *("features.proxies", "features.intervals", "features.proxy_examples"),
        *("features.proxy_example_features", "corpus.context_size", "sae.seed"),
    ],
)
def feature_proxies(run: Run) -> Made:
    """Where the study's proxies are true and each feature active; no rows without proxies."""
    from mechinterp_assets.features.proxy_examples import best_features, proxy_examples
    from mechinterp_assets.features.specificity import compare_with_proxies

    settings, read = run.study.features, _LayerInputs(run)
    promoted = (
        run.table("feature_logit_effects")
        .filter((pl.col("extreme") == "top") & (pl.col("rank") == 0))
        .select("feature", "token_id")
        .collect()
    )
    proxies, of_feature = named_proxies(settings.proxies), dict(promoted.iter_rows())
    result = compare_with_proxies(
        read.activation_blocks(),
        proxies,
        read.tokens,
        read.token_strings,
        of_feature,
        n_intervals=settings.intervals,
        only={
            proxy.name: proxy.features.get(run.layer, [])
            for proxy in settings.proxies
            if proxy.features is not None
        },
    )
    best = best_features(result.proxies, settings.proxy_example_features)
    examples = proxy_examples(
        read.activations_of({feature for own in best.values() for feature in own}),
        proxies,
        best,
        read.tokens,
        read.token_strings,
        of_feature,
        count=settings.proxy_examples,
        seed=run.study.sae.seed,
    )
    mass = result.proxies.group_by("proxy", maintain_order=True).agg(
        (pl.col("activation_sum_true") / pl.col("activation_sum")).max().alias("best")
    )
    return run.made(
        {
            "feature_proxies": result.proxies,
            "feature_proxy_histogram": result.histogram,
            "feature_proxy_examples": examples,
        },
        {
            "feature_proxies": {
                f"best_mass_specificity: {name}": float(share) for name, share in mass.iter_rows()
            }
        },
    )


@tables(
    "feature_labels",
    "feature_label_summary",
    reads=["language_model", "attention_sae"],
    settings=["labels"],
    files=["labels"],
    kinds=["csv"],
)
def feature_labels(run: Run) -> Made:
    """Labels from the study's CSV files, checked; and shares of features called interpretable."""
    run.row("language_model")  # the provenance of what is labelled
    labels = read_labels(read_label_files(run.study.labels), run.name, labelled_saes(run))
    return run.made(
        {"feature_labels": labels, "feature_label_summary": label_summary(labels)},
        {"feature_labels": {"raters": float(labels["rater"].n_unique())}},
    )


# ---- private -------------------------------------------------------------------------------------


class _LayerInputs:
    """What every asset over the activations of a layer reads: LAYER_INPUTS."""

    def __init__(self, run: Run) -> None:
        from mechinterp_assets.corpora.token_documents import Separator
        from mechinterp_assets.features.corpus_tokens import CorpusTokens

        model = run.row("language_model")
        run.row("attention_sae")  # the provenance of its activations
        self._statistics = run.frame("feature_statistics")
        self._activations = run.table("feature_activations")
        vocabulary = run.table("vocabulary").sort("token_id").select("token")
        self.token_strings: list[str] = vocabulary.collect()["token"].to_list()
        n_tokens = int(self._statistics["n_tokens"][0])
        outliers = run.frame("activation_outliers").select("sequence", "position")
        # Sequences hold nearly all their tokens where BOS alone is left out: twice as many do.
        sequences = 2 * (n_tokens // run.study.corpus.context_size + 1)
        if len(model["left_out_token_ids"]) > 1 or outliers.height:
            sequences = n_tokens
        self.tokens = CorpusTokens.of_pass(
            run.table("tokenized_corpus")
            .select("sequence", "documents", "token_ids")
            .sort("sequence")
            .head(sequences)
            .collect(),
            left_out=model["left_out_token_ids"],
            n_tokens=n_tokens,
            outliers=outliers,
            separator=Separator(model["bos_token_id"], model["prepend_bos"]),
        )

    def activations_of(self, features: Collection[int]) -> pl.DataFrame:
        """Activations of some features."""
        return (
            self._activations.filter(pl.col("feature").is_in(sorted(features)))
            .select("feature", "sequence", "position", "activation")
            .collect()
        )

    def activation_blocks(self) -> Iterator[pl.DataFrame]:
        """Activations in blocks of whole features."""
        from mechinterp_assets.features.sparse_activations import feature_blocks

        def read(first: int, last: int) -> pl.DataFrame:
            return (
                self._activations.filter(pl.col("feature").is_between(first, last))
                .select("feature", "sequence", "position", "activation")
                .collect()
            )

        return feature_blocks(self._statistics, read)


def _induction_heads(run: Run) -> list[int]:
    """Heads of the layer with the role induction."""
    # Not by the view head_roles, which reads the scores on IOI too.
    heads = heads_with_role("induction", run.frame("head_scores"))
    return [head for layer, head in heads if layer == run.layer]
