"""Heads of a model of 12 x 12 heads, made of random numbers, with text that attacks the page."""

import numpy as np
import polars as pl
from hostile_layer import ATTACK, HOSTILE, LENGTH, TOKENS

from mechinterp_assets.ablation.modes import reference_of
from mechinterp_assets.dashboards.head_frames import HeadFrames
from mechinterp_assets.heads.attention_examples import EXAMPLES_SCHEMA
from mechinterp_assets.heads.head_features import HEAD_FEATURES_SCHEMA
from mechinterp_assets.heads.polysemanticity import PROXY_SCHEMA
from mechinterp_assets.labels.heads import HEAD_LABELS_SCHEMA
from mechinterp_assets.storage.declarations import polars_schema, table_spec

N_LAYERS, N_HEADS = 12, 12
SAE_LAYER = 3  # the only layer with features
HEADS = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
SCORES = ("induction", "copying", ATTACK)
TEXTS = [token.encode("utf-8", "replace").decode() for token in TOKENS]


def frames(sequences: pl.DataFrame) -> HeadFrames:
    """Frames with rows for every block; layer SAE_LAYER alone has features."""
    random = np.random.default_rng(0)
    scores = scores_table(random)
    tests = scores.with_columns(
        passes=(pl.col("value") > pl.col("threshold"))
        & (pl.col("value") > pl.col("null_mean") + 3 * pl.col("null_sd"))
    )
    return HeadFrames(
        scores=tests.with_columns(pl.col("passes").fill_null(False)),
        roles=tests.filter("passes").select("layer", "head", role="score"),
        examples=_examples(random, sequences),
        features=_features(random),
        families=pl.DataFrame(
            {"layer": [SAE_LAYER], "feature": [0], "family": [ATTACK]},
            schema={"layer": pl.Int32, "feature": pl.Int32, "family": pl.String},
        ),
        proxy=_proxy(),
        labels=_labels(),
        edges=_edges(random),
        nodes=_nodes(),
        effects=_effects(random),
        task_effects=_task_effects(),
    )


def scores_table(random: np.random.Generator) -> pl.DataFrame:
    """Rows of head_scores."""
    rows = [
        {
            "layer": layer,
            "head": head,
            "score": score,
            "value": 0.9
            if (layer, head, score) == (SAE_LAYER, 0, "induction")
            else float(random.uniform(-1, 1)),
            "n": 100,
            "null_mean": 0.01,
            "null_sd": 0.02,
            "threshold": None if score == "copying" else 0.5,
            "dataset": f"data {ATTACK}",
        }
        for layer, head in HEADS
        for score in SCORES
    ]
    return pl.DataFrame(rows, schema=polars_schema(table_spec("head_scores")))


# ---- private -------------------------------------------------------------------------------------


def _examples(random: np.random.Generator, sequences: pl.DataFrame) -> pl.DataFrame:
    ids = dict(sequences.iter_rows())
    numbers = sorted(ids)
    rows = []
    for i, (layer, head) in enumerate(HEADS):
        for rank in range(3):
            sequence = numbers[(i + rank) % len(numbers)]
            destination = 8 + (i + 7 * rank) % (LENGTH - 8)
            row = random.dirichlet(np.full(destination + 1, 0.1)).astype(np.float32)
            source = 1 + int(row[1:destination].argmax())
            rows.append(
                {
                    "layer": layer,
                    "head": head,
                    "rank": rank,
                    "selection": "spread" if rank == 2 else "strongest",
                    "attention_quantile": 0.9 - 0.4 * rank,
                    "sequence": sequence,
                    "destination": destination,
                    "source": source,
                    "attention": float(row[source]),
                    "destination_token": TEXTS[ids[sequence][destination]],
                    "source_token": TEXTS[ids[sequence][source]],
                    "attention_row": row.tolist(),
                }
            )
    return pl.DataFrame(rows, schema=EXAMPLES_SCHEMA)


def _features(random: np.random.Generator) -> pl.DataFrame:
    rows = [
        {
            "layer": SAE_LAYER,
            "head": head,
            "rank": rank,
            "alive_rank": None if rank == 4 else rank - (rank > 4),
            "feature": (head + rank) % 30,
            "attribution": 0.9 / (1 + rank),
            "is_alive": rank != 4,
            "n_active": 0 if rank == 4 else 50,
            "density": 0.0 if rank == 4 else 0.01,
            "frequent_tokens": TEXTS[1 + rank : 4 + rank],
            "fires_on_share": 0.5,
            "promoted_tokens": [ATTACK, TEXTS[(rank + 10) % len(TEXTS)], "=" * 500],
        }
        for head in range(N_HEADS)
        for rank in range(len(HOSTILE) if head == 0 else 10)
    ]
    return pl.DataFrame(rows, schema=HEAD_FEATURES_SCHEMA)


def _proxy() -> pl.DataFrame:
    rows = [
        {
            **dict.fromkeys(PROXY_SCHEMA, 1),
            "layer": SAE_LAYER,
            "head": head,
            "measure": measure,
            "n_compared": 9,
            "n_clusters": 3,
            "null_n_clusters": 8.5,
            "null_n_clusters_sd": 0.5,
            "clusters": [0, 0, 1, 1, 2, 2, 2, 0, 0],
            "features": [(head + rank) % 30 for rank in range(10) if rank != 4],
        }
        for head in range(N_HEADS)
        for measure in ("decoder_slice", "ngrams", "either")
    ]
    return pl.DataFrame(rows, schema=PROXY_SCHEMA)


def _labels() -> pl.DataFrame:
    rows = [
        (SAE_LAYER, 0, None, ATTACK, ATTACK, "polysemantic", ATTACK, "f.csv", 2),
        (SAE_LAYER, 0, 0, ATTACK, ATTACK, None, "", "f.csv", 3),
        (SAE_LAYER, 1, None, "ann", "", "bisemantic", "", "f.csv", 4),
    ]
    return pl.DataFrame(rows, schema=HEAD_LABELS_SCHEMA, orient="row")


def _edges(random: np.random.Generator) -> pl.DataFrame:
    spec = polars_schema(table_spec("trace_graph"))
    rows = []
    for i in range(60):
        row: dict[str, object] = dict.fromkeys(spec.names())
        row.update(
            task="ioi" if i % 3 else ATTACK,
            upstream_layer=i % 3,
            upstream_head=i % 12,
            downstream_layer=SAE_LAYER,
            downstream_head=0 if i < 40 else i % 12,
            destination_role="END",
            source_role=ATTACK if i % 2 else "IO",
            side="source" if i % 4 else "destination",
            written_role="END",
            trace_rule="fc24",
            n_prompts=60 - i,
            n_pairs=60 - i,
            path_multiplicity=1.0,
            mean_contribution=float(random.normal()),
            mean_contribution_share=None if i % 5 == 0 else 0.2,
            mean_head_share=None if i % 5 == 0 else 0.345,
            mean_exact_effect=0.1,
            is_root=False,
        )
        rows.append(row)
    return pl.DataFrame(rows, schema=spec)


def _nodes() -> pl.DataFrame:
    spec = polars_schema(table_spec("trace_nodes"))
    rows = []
    for source, attention in ((ATTACK, 0.5), ("IO", None), (None, None)):
        row: dict[str, object] = dict.fromkeys(spec.names())
        row.update(
            trace_rule="fc24",
            task="ioi",
            layer=SAE_LAYER,
            head=0,
            destination_role="END",
            source_role=source,
            n_prompts=7,
            mean_attention=attention,
            mean_destination_head_share=0.62 if attention else None,
            mean_source_head_share=0.18 if attention else None,
        )
        rows.append(row)
    return pl.DataFrame(rows, schema=spec)


def _effects(random: np.random.Generator) -> pl.DataFrame:
    spec = polars_schema(table_spec("intervention_summary"))
    rows = []
    for layer, head in HEADS:
        for mode in ("zero", "mean_counterfactual"):
            for metric in ("logit_diff", "kl"):
                row: dict[str, object] = dict.fromkeys(spec.names())
                effect = float(random.normal())
                row.update(
                    task="ioi",
                    intervention=f"{mode}:{layer}.{head}",
                    kind="head_ablation",
                    mode=mode,
                    reference=reference_of(mode),
                    site="z",
                    layer=layer,
                    head=head,
                    position_role="all",
                    alpha=1.0,
                    is_control=False,
                    metric=metric,
                    n=64,
                    mean_effect=effect,
                    ci_low=effect - 0.5,
                    ci_high=effect + 0.5,
                )
                rows.append(row)
    return pl.DataFrame(rows, schema=spec)


def _task_effects() -> pl.DataFrame:
    spec = polars_schema(table_spec("task_head_effects"))
    rows = []
    for task, mode, low in (
        (ATTACK, "zero", 0.1),
        ("url", "zero", -0.1),
        ("url", "mean_leave_one_out", 0.1),
    ):
        row: dict[str, object] = dict.fromkeys(spec.names())
        row.update(
            task=task,
            mode=mode,
            reference=reference_of(mode),
            layer=SAE_LAYER,
            head=0,
            metric="loss",
            n=8,
            mean_effect=0.25,
            ci_low=low,
            ci_high=0.5,
        )
        rows += [row, {**row, "metric": "kl"}]
    return pl.DataFrame(rows, schema=spec)
