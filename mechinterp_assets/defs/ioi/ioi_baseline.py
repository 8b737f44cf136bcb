"""How well the model does IOI, Omega's singular values, the slices that attention uses.

The traced circuit is in circuit_trace.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.tasks.prompts_of import NO_IOI
from mechinterp_assets.orchestration.artefacts import sequences
from mechinterp_assets.orchestration.publishing import Metadata
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:
    from collections.abc import Mapping


@tables(
    "ioi_baseline",
    reads=["language_model", "ioi_prompts"],
    seed="ioi.seed",
    pool=GPU,
    kinds=["torch"],
)
def ioi_baseline(run: Run) -> Made:
    """Logits and probabilities of both names at the end of every prompt."""
    from mechinterp_assets.circuits.baseline import ioi_baseline as answer

    prompts = run.frame("ioi_prompts")
    if prompts.is_empty():
        return run.nothing(NO_IOI, "ioi_baseline")
    baseline = answer(run.model, prompts)
    base = baseline.join(prompts.filter(pl.col("variant") == "base"), on="prompt", how="semi")
    by_template = (
        base.join(prompts, on="prompt")
        .group_by("template")
        .agg(pl.col("logit_diff").mean())
        .sort("template")
    )
    return run.made(
        {"ioi_baseline": baseline},
        {
            "ioi_baseline": {
                "prefers_io": float(base["prefers_io"].cast(pl.Float64).to_numpy().mean()),
                "logit_diff": float(base["logit_diff"].to_numpy().mean()),
                "logit_diff_by_template": dg.MetadataValue.md(
                    f"![templates]({tiny_bar_chart(by_template['logit_diff'].to_list())})"
                ),
            }
        },
    )


@tables(
    "attention_svd",
    reads=["language_model"],
    seed=0,
    pool=GPU,
    kinds=["torch"],
    needs=["query_key"],
)
def attention_svd(run: Run) -> Made:
    """Singular values of every head's Omega, from one batched QR and small SVD."""
    from mechinterp_assets.circuits.omega import attention_svd as singular_values

    frame = singular_values(run.model)
    return run.made(
        {"attention_svd": frame},
        {"attention_svd": {"largest": float(frame["singular_value"].to_numpy().max())}},
    )


@tables(
    "attention_slice_counts",
    "attention_slice_usage",
    reads=["language_model", "ioi_prompts", "tokenized_corpus"],
    settings=["ioi.usage_sequences", "ioi.firing_threshold"],
    seed="ioi.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["query_key"],
)
def slice_usage(run: Run) -> Made:
    """Slices that attention uses on IOI prompts and on unspecific text, firing and not firing."""
    from mechinterp_assets.circuits.omega import ModelOmega
    from mechinterp_assets.circuits.slice_usage import slice_usage as measure
    from mechinterp_assets.circuits.slice_usage import text_of_the_same_lengths

    settings, model = run.study.ioi, run.model
    prompts = run.table("ioi_prompts").filter(pl.col("variant") == "base").collect()
    held_out = sequences(run, "held_out", settings.usage_sequences)
    omega = ModelOmega(model)
    texts = {"ioi": prompts, "corpus": text_of_the_same_lengths(held_out, prompts)}
    if prompts.is_empty():
        run.log.warning(f"slice usage of ioi is left out: {NO_IOI}")
        del texts["ioi"]
    counts, usage = {}, []
    for text, frame in texts.items():
        found = measure(
            model, frame, threshold=settings.firing_threshold, seed=settings.seed, omega=omega
        )
        label = pl.lit(text).alias("text_source")
        counts[text] = found.counts.with_columns(label)
        usage.append(found.usage.with_columns(label))
    return run.made(
        {
            "attention_slice_counts": pl.concat(counts.values()),
            "attention_slice_usage": pl.concat(usage),
        },
        {"attention_slice_counts": _mean_slices(counts)},
    )


def _mean_slices(counts: Mapping[str, pl.DataFrame]) -> Metadata:
    means: Metadata = {}
    for text, frame in counts.items():
        pairs = frame["n_pairs"].to_numpy()
        slices = (frame["n_slices"].to_numpy() * pairs).sum()
        means[f"mean_slices_{text}"] = float(slices / pairs.sum()) if len(pairs) else None
    return means
