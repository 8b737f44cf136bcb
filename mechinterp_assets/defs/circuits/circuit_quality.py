"""How well edges and heads found in several ways carry a task alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.tasks.prompts_of import prompts_of
from mechinterp_assets.orchestration.artefacts import open_saes
from mechinterp_assets.orchestration.head_roles import SCORE_TABLES, head_roles
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from torch import Tensor

    from mechinterp_assets.faithfulness.head_sets import Heads
    from mechinterp_assets.faithfulness.split_model import SplitModel

TABLES = (
    "edge_attribution",
    "edge_attribution_agreement",
    "circuit_faithfulness",
    "circuit_faithfulness_summary",
    "head_set_quality",
)
PROMPTS = ("ioi_prompts", "task_prompts")


@tables(
    *TABLES,
    reads=["language_model", *PROMPTS, "ioi_trace_graph", *SCORE_TABLES],
    settings=["circuits", "ioi.reference_heads"],
    seed="circuits.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["edges"],
)
def circuit_quality(run: Run) -> Made:
    """Edge attribution beside exact patching; faithfulness of edge sets and of head sets."""
    from mechinterp_assets.circuits.reference_heads import reference_lists
    from mechinterp_assets.faithfulness.measure import measure_circuits

    settings = run.study.circuits
    prompts = {task: _prompts(run, task) for task in settings.tasks}
    split = _checked(run, prompts)
    traced, roles = run.frame("ioi_trace_graph"), _roles(run)
    references = reference_lists(run.model.config, run.study.ioi.reference_heads)
    # Circuits of the whole task, without their parts ("name: role").
    whole = {name: heads for name, heads in references.items() if ": " not in name}
    frames: dict[str, list[pl.DataFrame]] = {name: [] for name in TABLES}
    for task in settings.tasks:
        found = measure_circuits(
            split,
            prompts[task],
            settings,
            counterfactual=_counterfactual(run, task),
            traced=traced.filter(pl.col("task") == task),
            named_sets=whole if task == "ioi" else {},
            roles=roles,
            note=partial(_log_of_task, run, task),
        )
        for name in TABLES:
            frames[name].append(_of_task(getattr(found, name), task))
    made = {name: pl.concat(parts) for name, parts in frames.items()}
    first = made["circuit_faithfulness"].filter(task=settings.tasks[0], ranked_by="signed", seed=0)
    summary = made["circuit_faithfulness_summary"].filter(task=settings.tasks[0])
    return run.made(
        made,
        {
            "edge_attribution_agreement": {
                f"spearman_{task}_{method}_{rule}": value
                for task, method, rule, value in made["edge_attribution_agreement"]
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


@tables(
    "subspace_patching",
    reads=["language_model", *PROMPTS, "attention_sae"],
    settings=[
        "circuits.tasks",
        "circuits.counterfactual",
        "circuits.prompts",
        "circuits.subspace_features",
    ],
    seed="circuits.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["edges"],
)
def subspace_patching(run: Run) -> Made:
    """Patch directions, what the next weights read of them, the rest, and the whole component."""
    import torch

    from mechinterp_assets.activations.harvest import capture_z
    from mechinterp_assets.faithfulness.measure import measure_subspaces

    settings = run.study.circuits
    prompts = {task: _prompts(run, task) for task in settings.tasks}
    split = _checked(run, prompts)
    saes = open_saes(run, run.study.layers)

    def encode(layer: int, ids: Tensor) -> Tensor:
        z = capture_z(run.model, ids, [layer])[layer].float()
        return saes[layer].encode(z.flatten(0, 1)).reshape(*z.shape[:2], -1)

    with torch.no_grad():
        frame = pl.concat(
            _of_task(
                measure_subspaces(
                    split,
                    prompts[task],
                    counterfactual=_counterfactual(run, task),
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
    return run.made(
        {"subspace_patching": frame},
        {
            "subspace_patching": {
                "largest_effect_of_a_null_part": float(null["fldd"].abs().to_numpy().max()),
            }
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _log_of_task(run: Run, task: str, text: str) -> None:
    run.log.info(f"{task}: {text}")


def _prompts(run: Run, task: str) -> pl.DataFrame:
    """Prompts of a task in the common form."""
    from mechinterp_assets.prompts.common import IOI, TASK_PROMPTS_SCHEMA, from_ioi

    prompts = prompts_of(run, task, setting="circuits.tasks")
    return from_ioi(prompts) if task == IOI else prompts.select(*TASK_PROMPTS_SCHEMA)


def _checked(run: Run, prompts: dict[str, pl.DataFrame]) -> SplitModel:
    """The model as functions, refused unless it gives the bridge's logits on a prompt."""
    import torch

    from mechinterp_assets.faithfulness.split_model import SplitModel

    split = SplitModel(run.model)
    ids = next(iter(prompts.values()))["token_ids"][0].to_list()
    split.check(run.model, torch.tensor([ids], device=run.model.device))
    return split


def _counterfactual(run: Run, task: str) -> str:
    from mechinterp_assets.prompts.common import CORRUPT, IOI

    return run.study.circuits.counterfactual if task == IOI else CORRUPT


def _roles(run: Run) -> dict[str, Heads]:
    """Role -> heads, of all scores of this study."""
    found = head_roles(*(run.frame(name) for name in SCORE_TABLES))
    return {
        str(role): frozenset(
            (int(at), int(head)) for at, head in rows.select("layer", "head").rows()
        )
        for (role,), rows in found.group_by("role", maintain_order=True)
    }


def _of_task(frame: pl.DataFrame, task: str) -> pl.DataFrame:
    return frame.select(pl.lit(task).alias("task"), pl.all())
