"""How well the untouched model does each task.

Belongs here: the answer to every prompt. Does not belong here: any intervention.
"""

from collections.abc import Mapping

import polars as pl
import torch

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import widened
from mechinterp_assets.prompts.answers import AnswerTokens, answer_metrics
from mechinterp_assets.prompts.common import BASE
from mechinterp_assets.prompts.ioi import equal_length_groups

BASELINE_SCHEMA: dict[str, pl.DataType] = {
    "task": pl.String(),
    "prompt": pl.Int64(),
    "template": pl.Int32(),
    "variant": pl.String(),
    "loss": pl.Float64(),
    "prob": pl.Float64(),
    "answer_rank": pl.Int32(),
    "logit_diff": pl.Float64(),
    "is_top1": pl.Boolean(),
    "top_token_id": pl.Int32(),
    "skipped": pl.String(),
}


@torch.no_grad()
def task_baseline(
    model: LanguageModel,
    prompts: pl.DataFrame,
    skipped: Mapping[str, str] | None = None,
    *,
    max_prompts: int = 64,
) -> pl.DataFrame:
    """Table task_baseline: one row per prompt, ordered by task and prompt; raw weights.

    prompts: rows of TASK_PROMPTS_SCHEMA. skipped: task -> why there are no prompts of it; such a
    task has one row without a prompt. Prompts of equal length run together, without padding.
    Raises PromptError as check_prompts_fit does.
    """
    if not prompts.is_empty():
        check_prompts_fit(prompts, model)
    frames = [pl.DataFrame(schema=BASELINE_SCHEMA)]
    for group, ids in equal_length_groups(prompts, max_prompts):
        logits = model.hf(ids.to(model.device), logits_to_keep=1).logits[:, -1]
        logits = widened(logits)
        found = answer_metrics(logits, AnswerTokens.of(group, model.device))
        values = pl.DataFrame({name: column.cpu().numpy() for name, column in found.items()})
        frames.append(
            group.select("task", "prompt", "template", "variant")
            .hstack(values)
            .with_columns(pl.col("loss", "prob", "answer_rank", "logit_diff").fill_nan(None))
            .with_columns(
                is_top1=pl.col("answer_rank") == 1,
                top_token_id=pl.Series(logits.argmax(-1).cpu().numpy()),
                skipped=pl.lit(None, pl.String),
            )
            .select(pl.col(name).cast(dtype) for name, dtype in BASELINE_SCHEMA.items())
        )
    reasons = pl.DataFrame(
        {"task": list(skipped or {}), "skipped": list((skipped or {}).values())},
        schema_overrides={"task": pl.String(), "skipped": pl.String()},
    )
    return pl.concat([*frames, reasons], how="diagonal").sort("task", "prompt")


def task_accuracy(baseline: pl.DataFrame) -> dict[str, float]:
    """Task -> share of its base prompts whose most likely token is an answer; of those that have
    one."""
    shares = (
        baseline.filter((pl.col("variant") == BASE) & pl.col("is_top1").is_not_null())
        .group_by("task")
        .agg(pl.col("is_top1").cast(pl.Float64).mean())
        .sort("task")
    )
    return {str(task): float(share) for task, share in shares.iter_rows()}
