"""Group `circuits`: how well edges and heads found in several ways carry a task alone."""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.circuits.reference_heads import reference_lists
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.saes.attention_sae import open_sae
from mechinterp_assets.faithfulness.head_sets import Heads
from mechinterp_assets.faithfulness.measure import (
    CircuitSettings,
    measure_circuits,
    measure_subspaces,
)
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.head_roles import head_roles
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.prompts.common import CORRUPT, IOI, TASK_PROMPTS_SCHEMA, from_ioi
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.sections import CircuitsSection
from mechinterp_assets.studies.study import site_key

GROUP = "circuits"
TABLES = (
    "edge_attribution",
    "edge_attribution_agreement",
    "circuit_faithfulness",
    "circuit_faithfulness_summary",
    "head_set_quality",
)


@dg.multi_asset(
    name="circuit_quality",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=[
                "language_model",
                "ioi_prompts",
                "task_prompts",
                "ioi_trace_graph",
                "head_scores",
                "ioi_head_scores",
            ],
            kinds=["torch"],
        )
        for name in TABLES
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def circuit_quality(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Edge attribution beside exact patching; faithfulness of edge sets and of head sets."""
    study = STUDIES[context.partition_key]
    settings = study.circuits
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "circuits", "ioi")
    prompts = {task: _prompts(inputs, task) for task in settings.tasks}
    split = _checked(model, prompts)
    traced = inputs.table("ioi_trace_graph", study.study).collect()
    roles = _roles(inputs)
    references = reference_lists(model.config, study.ioi.reference_heads)
    frames: dict[str, list[pl.DataFrame]] = {name: [] for name in TABLES}
    for task in settings.tasks:
        found = measure_circuits(
            split,
            prompts[task],
            _settings(settings),
            counterfactual=_counterfactual(settings, task),
            traced=traced.filter(pl.col("task") == task),
            # Circuits of the whole task, without their parts ("name: role").
            named_sets={n: h for n, h in references.items() if ": " not in n}
            if task == IOI
            else {},
            roles=roles,
            note=lambda text, task=task: context.log.info(f"{task}: {text}"),  # type: ignore[misc]
        )
        for name in TABLES:
            frames[name].append(_of_task(getattr(found, name), task))
    tables = {name: pl.concat(parts) for name, parts in frames.items()}
    publisher = Publisher(context, lake)
    first = tables["circuit_faithfulness"].filter(
        task=settings.tasks[0], ranked_by="signed", seed=0
    )
    summary = tables["circuit_faithfulness_summary"].filter(task=settings.tasks[0])
    publisher.publish(
        study.study,
        inputs,
        tables,
        {
            "edge_attribution_agreement": {
                f"spearman_{task}_{method}_{rule}": value
                for task, method, rule, value in tables["edge_attribution_agreement"]
                .select("task", "method", "rule", "spearman")
                .iter_rows()
            },
            "circuit_faithfulness": {
                f"faithfulness_{ranking}": dg.MetadataValue.md(
                    f"![{ranking}]({tiny_bar_chart(curve.sort('edge_fraction')['faithfulness'].to_list())})"
                )
                for (ranking,), curve in first.group_by("ranking", maintain_order=True)
            },
            "circuit_faithfulness_summary": {
                f"cmd_{row['ranking']}_{row['ranked_by']}_{row['seed']}": row["cmd"]
                for row in summary.to_dicts()
            },
        },
    )
    yield from publisher.results()


@dg.multi_asset(
    name="subspace_patching",
    specs=[
        table_asset(
            "subspace_patching",
            per="study",
            group=GROUP,
            study_deps=["language_model", "ioi_prompts", "task_prompts"],
            site_deps=["attention_sae"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def subspace_patching(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Patch directions, what the next weights read of them, the rest, and the whole component."""
    study = STUDIES[context.partition_key]
    settings = study.circuits
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "circuits")
    prompts = {task: _prompts(inputs, task) for task in settings.tasks}
    split = _checked(model, prompts)
    saes = {layer: open_sae(inputs, site_key(study.study, layer), model) for layer in study.layers}

    def encode(layer: int, ids: Tensor) -> Tensor:
        z = capture_z(model, ids, [layer])[layer].float()
        return saes[layer].encode(z.flatten(0, 1)).unflatten(0, z.shape[:2])  # type: ignore[no-untyped-call, no-any-return]

    with torch.no_grad():
        frame = pl.concat(
            _of_task(
                measure_subspaces(
                    split,
                    prompts[task],
                    counterfactual=_counterfactual(settings, task),
                    count=settings.prompts,
                    features=settings.subspace_features,
                    decoders={layer: sae.W_dec for layer, sae in saes.items()},
                    encode=encode,
                ),
                task,
            )
            for task in settings.tasks
        )
    null = frame.filter(patched_part="null")
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"subspace_patching": frame},
        {
            "subspace_patching": {
                "largest_effect_of_a_null_part": float(null["fldd"].abs().to_numpy().max()),
            }
        },
    )
    yield from publisher.results()


def _prompts(inputs: Inputs, task: str) -> pl.DataFrame:
    """Prompts of a task in the common form."""
    study = inputs.study.study
    if task == IOI:
        return from_ioi(inputs.table("ioi_prompts", study).collect())
    stored = inputs.table("task_prompts", study).filter(pl.col("task") == task)
    rows = stored.select(*TASK_PROMPTS_SCHEMA).collect()
    if rows.is_empty():
        raise ValueError(
            f"{study}: circuits.tasks names {task!r}, which task_prompts has no prompts of (the "
            "tokenizer may not express it); take it out of circuits.tasks"
        )
    return rows


def _checked(model: LanguageModel, prompts: dict[str, pl.DataFrame]) -> SplitModel:
    """The model as functions, refused unless it gives the bridge's logits on a prompt."""
    split = SplitModel(model)
    ids = next(iter(prompts.values()))["token_ids"][0].to_list()
    split.check(model, torch.tensor([ids], device=model.device))
    return split


def _counterfactual(settings: CircuitsSection, task: str) -> str:
    return settings.counterfactual if task == IOI else CORRUPT


def _settings(section: CircuitsSection) -> CircuitSettings:
    return CircuitSettings(
        prompts=section.prompts,
        ig_steps=section.ig_steps,
        ig_rules=tuple(section.ig_rules),
        exact_prompts=section.exact_prompts,
        exact_edges=section.exact_edges,
        random_rankings=section.random_rankings,
        head_set_size=section.head_set_size,
        minimality_heads=section.minimality_heads,
        random_head_sets=section.random_head_sets,
        random_subsets=section.random_subsets,
        seed=section.seed,
    )


def _roles(inputs: Inputs) -> dict[str, Heads]:
    """Role -> heads, of all scores of this study."""
    study = inputs.study.study
    scores = [inputs.table(name, study).collect() for name in ("head_scores", "ioi_head_scores")]
    found = head_roles(*scores)
    return {
        str(role): frozenset(
            (int(at), int(head)) for at, head in rows.select("layer", "head").rows()
        )
        for (role,), rows in found.group_by("role", maintain_order=True)
    }


def _of_task(frame: pl.DataFrame, task: str) -> pl.DataFrame:
    return frame.select(pl.lit(task).alias("task"), pl.all())
