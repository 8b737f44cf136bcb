"""Group `circuits`: attention scores of name movers split into pairs of SAE features.

Belongs here: which heads are split, and the SAEs of the layers before them. How scores are split is
in attribution/qk_features.py.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl

from mechinterp_assets.attribution.qk_features import QkFeatureError, QkSettings, qk_features
from mechinterp_assets.defs.circuits.circuit_quality import GROUP
from mechinterp_assets.defs.saes.attention_sae import open_sae
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.head_roles import head_roles
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.prompts.common import BASE, IOI
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.external import read_residual
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study import site_key

TABLES = ("qk_feature_pairs", "qk_feature_kinds", "qk_feature_summary")
ROLE, FALLBACK = "name_mover", "ioi_attention_io"


@dg.multi_asset(
    name="qk_features",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=[
                "language_model",
                "ioi_prompts",
                "task_prompts",
                "head_scores",
                "ioi_head_scores",
            ],
            site_deps=["attention_sae"],
            kinds=["torch"],
        )
        for name in TABLES
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def qk_feature_pairs(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """What queries at END and keys at the names are made of, and which pairs make the score."""
    study = STUDIES[context.partition_key]
    settings = study.qk_features
    compute.prepare(0)
    inputs, model = inputs_with_model(lake, tensors, models, study, "qk_features")
    heads = _heads(inputs)
    saes = {
        layer: open_sae(inputs, site_key(study.study, layer), model)
        for layer in study.layers
        if layer < max(at for at, _ in heads)
    }
    tables = qk_features(
        model,
        saes,
        _prompts(inputs).head(settings.prompts),
        list(heads),
        QkSettings(
            destination=settings.destination,
            sources=tuple(settings.sources),
            contrasts=tuple(settings.compared),
            top_pairs=settings.top_pairs,
            top_k=tuple(settings.top_k),
        ),
        residual_saes=_residual_saes(inputs, model, {layer for layer, _ in heads}),
        centre_residual=settings.centre_residual,
    )
    reasons = pl.DataFrame(
        [(*head, reason) for head, reason in heads.items()],
        schema={"layer": pl.Int32, "head": pl.Int32, "chosen_by": pl.String},
        orient="row",
    )

    def named(frame: pl.DataFrame) -> pl.DataFrame:
        joined = frame.join(reasons, on=["layer", "head"], how="left", maintain_order="left")
        return joined.with_columns(task=pl.lit(settings.task))

    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {
            "qk_feature_pairs": named(tables.pairs),
            "qk_feature_kinds": named(tables.kinds).drop("chosen_by"),
            "qk_feature_summary": named(tables.summary),
        },
        {
            "qk_feature_pairs": {
                "heads": "; ".join(f"{at}.{head}: {why}" for (at, head), why in heads.items()),
                "largest_identity_error": float(tables.pairs["identity_error"].to_numpy().max()),
            }
        },
    )
    yield from publisher.results()


def _heads(inputs: Inputs) -> dict[tuple[int, int], str]:
    """Heads and why: the study's own, else name movers, else those that attend END -> IO most."""
    study = inputs.study
    settings = study.qk_features
    if settings.heads != "auto":
        return dict.fromkeys(settings.heads, "named in qk_features.heads")
    scores = [
        inputs.table(name, study.study).collect() for name in ("head_scores", "ioi_head_scores")
    ]
    movers = head_roles(*scores).filter(pl.col("role") == ROLE)
    reason = f"role {ROLE}"
    if movers.is_empty():
        movers = scores[1].filter(pl.col("score") == FALLBACK)
        reason = f"largest {FALLBACK}; no head has the role {ROLE}"
    chosen = movers.sort("value", "layer", "head", descending=[True, False, False])
    rows = chosen.head(settings.max_heads).select("layer", "head").sort("layer", "head").rows()
    return {(int(layer), int(head)): reason for layer, head in rows}


def _prompts(inputs: Inputs) -> pl.DataFrame:
    """Base prompts of the task."""
    study, task = inputs.study.study, inputs.study.qk_features.task
    table = inputs.table("ioi_prompts" if task == IOI else "task_prompts", study)
    if task != IOI:
        table = table.filter(pl.col("task") == task)
    prompts = table.filter(pl.col("variant") == BASE).collect()
    if prompts.is_empty():
        raise QkFeatureError(
            f"qk_features.task {task!r} has no prompts in this study: its tokenizer may not be "
            "able to express them (the log of task_prompts says why); choose another task"
        )
    return prompts


def _residual_saes(
    inputs: Inputs, model: LanguageModel, layers: set[int]
) -> dict[int, SparseAutoencoder]:
    """SAEs on the residual stream before `layers`, where the study names a folder."""
    folder = inputs.study.qk_features.residual_sae
    if folder is None:
        return {}
    saes = {}
    for layer in sorted(layers):
        sae = read_residual(Path(folder.replace("{layer}", str(layer))), model, layer)
        inputs.versions[f"residual_sae/L{layer:02d}"] = sae.weights_hash()
        saes[layer] = sae.to(model.device)
    return saes
