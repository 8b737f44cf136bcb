"""Heads through their features and examples, and what people call them.

Scores of heads are in head_scores.py, pages in head_dashboards.py.
"""

import polars as pl

from mechinterp_assets.labels.files import read_label_files
from mechinterp_assets.labels.heads import head_label_summary, read_head_labels
from mechinterp_assets.orchestration.artefacts import open_sae, sequences
from mechinterp_assets.orchestration.labelled_saes import labelled_saes
from mechinterp_assets.orchestration.publishing import Metadata
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables


@tables(
    "head_features",
    "head_polysemanticity_proxy",
    reads=[
        "language_model",
        "attention_sae",
        "feature_head_attribution",
        "feature_statistics",
        "feature_ngrams",
        "feature_logit_effects",
    ],
    settings=[
        "heads.top_features",
        "heads.slice_similarity",
        "heads.ngram_similarity",
        "heads.similarity_draws",
    ],
    seed="heads.seed",
    kinds=["torch"],
)
def head_features(run: Run) -> Made:
    """The features that each head writes most, and clusters among them as a proxy of its roles."""
    from mechinterp_assets.heads.head_features import head_features as rank_features
    from mechinterp_assets.heads.polysemanticity import head_polysemanticity_proxy

    settings, sae = run.study.heads, open_sae(run)
    statistics, ngrams = run.frame("feature_statistics"), run.frame("feature_ngrams")
    top = rank_features(
        run.frame("feature_head_attribution"),
        statistics,
        ngrams,
        run.frame("feature_logit_effects"),
        layer=run.layer,
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
        layer=run.layer,
        n_heads=run.model.config.n_heads,
        settings=settings,
    )
    return run.made(
        {"head_features": top, "head_polysemanticity_proxy": proxy},
        {"head_polysemanticity_proxy": _mean_clusters(proxy)},
    )


@tables(
    "head_attention_examples",
    reads=["language_model", "tokenized_corpus"],
    settings=["heads.sequences", "heads.attention_examples"],
    seed="heads.seed",
    pool=GPU,
    kinds=["torch"],
)
def head_attention_examples(run: Run) -> Made:
    """Held-out sequences in which each head attends most strongly to another token."""
    from mechinterp_assets.heads.attention_examples import (
        head_attention_examples as find_attention_examples,
    )

    settings = run.study.heads
    held_out = sequences(run, "held_out", settings.sequences)
    examples = find_attention_examples(run.model, held_out, top=settings.attention_examples)
    return run.made(
        {"head_attention_examples": examples},
        {"head_attention_examples": {"sequences": float(held_out.height)}},
    )


@tables(
    "head_labels",
    "head_label_summary",
    reads=["language_model", "attention_sae"],
    settings=["head_labels"],
    files=["head_labels"],
    kinds=["csv"],
)
def head_labels(run: Run) -> Made:
    """Classes of heads from the study's CSV files, checked; and the share of each class."""
    model = run.row("language_model")
    labels = read_head_labels(
        read_label_files(run.study.head_labels), run.name, model["n_heads"], labelled_saes(run)
    )
    return run.made(
        {"head_labels": labels, "head_label_summary": head_label_summary(labels)},
        {"head_labels": {"raters": float(labels["rater"].n_unique())}},
    )


# ---- private -------------------------------------------------------------------------------------


def _mean_clusters(proxy: pl.DataFrame) -> Metadata:
    """Mean number of clusters per measure, the heads' beside the null's."""
    means = proxy.group_by("measure").agg(pl.col("n_clusters", "null_n_clusters").mean())
    return {
        f"clusters_{row['measure']}": f"{row['n_clusters']:.2f} (null {row['null_n_clusters']:.2f})"
        for row in means.sort("measure").to_dicts()
    }
