"""How well edges and heads found in several ways carry a task alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.tasks.prompts_of import prompts_of_tasks
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
TRACES = ("attention_slices", "trace_edges", "acc_pairs", "acc_edges")


@tables(
    *TABLES,
    reads=["language_model", *PROMPTS, "trace_graph", *TRACES, *SCORE_TABLES],
    settings=["circuits", "ioi.reference_heads"],
    seed="circuits.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["edges"],
)
def circuit_quality(run: Run) -> Made:
    """Edge attribution beside exact patching; faithfulness of edge sets and of head sets."""
    from mechinterp_assets.circuits.reference_heads import reference_lists
    from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
    from mechinterp_assets.faithfulness.measure import measure_circuits

    settings = run.study.circuits
    try:
        split, prompts = _pairs(run)
    except FaithfulnessError as reason:
        return run.nothing(str(reason), *TABLES)
    traced, roles = run.frame("trace_graph"), _roles(run)
    references = reference_lists(run.model.config, run.study.ioi.reference_heads)
    # Circuits of the whole task, without their parts ("name: role").
    whole = {name: heads for name, heads in references.items() if ": " not in name}
    frames: dict[str, list[pl.DataFrame]] = {name: [] for name in TABLES}
    for task in prompts:
        found = measure_circuits(
            split,
            prompts[task],
            settings,
            counterfactual=_counterfactual(run, task),
            traced=traced.filter(pl.col("task") == task),
            trace_heads=_trace_heads(run, task),
            named_sets=whole if task == "ioi" else {},
            roles=roles,
            note=partial(_log_of_task, run, task),
        )
        for name in TABLES:
            frames[name].append(_of_task(getattr(found, name), task))
    made = {name: pl.concat(parts) for name, parts in frames.items()}
    first = made["circuit_faithfulness"].filter(
        task=next(iter(prompts)), ranked_by="signed", seed=0
    )
    summary = made["circuit_faithfulness_summary"].filter(task=next(iter(prompts)))
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
    from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
    from mechinterp_assets.faithfulness.measure import measure_subspaces

    settings = run.study.circuits
    try:
        split, prompts = _pairs(run)
    except FaithfulnessError as reason:
        return run.nothing(str(reason), "subspace_patching")
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
            for task in prompts
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


def _trace_heads(run: Run, task: str) -> dict[str, pl.DataFrame]:
    """Heads of every tracer, "<rule>" by traced pairs and "<rule>, edges" by edges, in how many of
    the prompts that all tracers traced: the fewer of ACC's, where there are any."""
    from mechinterp_assets.circuits.head_counts import heads_by_edges, heads_by_pairs

    slices, edges, acc_pairs, acc_edges = (
        run.table(name).filter(pl.col("task") == task) for name in TRACES
    )
    edges = edges.filter("kept")
    traced = acc_pairs.select("prompt").unique().collect()
    if not traced.is_empty():
        slices, edges = (
            rows.join(traced.lazy(), on="prompt", how="semi") for rows in (slices, edges)
        )
    counts: list[tuple[str, pl.DataFrame]] = []
    for pairs, own in ((slices, edges), (acc_pairs, acc_edges)):
        counts += [
            ("", heads_by_pairs(pairs).collect()),
            (", edges", heads_by_edges(own).collect()),
        ]
    return {
        f"{rule}{way}": of
        for way, counted in counts
        for (rule,), of in counted.group_by("trace_rule", maintain_order=True)
    }


def _log_of_task(run: Run, task: str, text: str) -> None:
    run.log.info(f"{task}: {text}")


def _pairs(run: Run) -> tuple[SplitModel, dict[str, pl.DataFrame]]:
    """The model as functions, and prompts of tasks in the common form, those that have pairs.

    Raises FaithfulnessError for a model whose logits these functions do not give, and where no task
    has pairs of base and counterfactual prompts.
    """
    import torch

    from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
    from mechinterp_assets.faithfulness.prompt_pairs import pairs_frame
    from mechinterp_assets.faithfulness.split_model import SplitModel
    from mechinterp_assets.prompts.common import IOI, TASK_PROMPTS_SCHEMA, from_ioi

    found: dict[str, pl.DataFrame] = {}
    for task, rows in prompts_of_tasks(run, run.study.circuits.tasks).items():
        prompts = from_ioi(rows) if task == IOI else rows.select(*TASK_PROMPTS_SCHEMA)
        try:
            pairs_frame(prompts, counterfactual=_counterfactual(run, task))
        except FaithfulnessError as reason:
            run.log.warning(f"{task} is left out: {reason}")
            continue
        found[task] = prompts
    if not found:
        raise FaithfulnessError(
            f"none of the tasks {run.study.circuits.tasks} has pairs of prompts to patch between"
        )
    split = SplitModel(run.model)
    ids = next(iter(found.values()))["token_ids"][0].to_list()
    split.check(run.model, torch.tensor([ids], device=run.model.device))
    return split, found


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
