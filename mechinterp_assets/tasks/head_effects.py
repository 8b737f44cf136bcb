"""What ablating a head does to each task, with intervals over prompts and a random-prompt null.

Belongs here: aggregation of a sweep over prompts, the null prompts. Does not belong here: the runs
(ablation.py), comparison of tasks (reuse.py).

effect = ablated - clean: positive loss and negative logit_diff mean that the model got worse at the
task. kl is KL(clean || ablated) over the next token at END; it is positive for any head that does
anything anywhere, so the same head's mean on random prompts stands beside it (head importance by KL
as in Zhou et al. 2024, arXiv 2410.13708, whose published numbers lack such a null).
"""

import random
from typing import Any

import numpy as np
import polars as pl

from mechinterp_assets.ablation.modes import reference_used
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import BASE, END, TASK_PROMPTS_SCHEMA
from mechinterp_assets.statistics.bootstrap import mean_interval
from mechinterp_assets.tasks.ablation import METRICS, Floats, Sweep

NULL_TASK = "random"
NULL_LENGTHS = 4  # distinct lengths of null prompts, so that they run in few passes

EFFECTS_SCHEMA: dict[str, Any] = {
    "task": pl.String(),
    "mode": pl.String(),
    "reference": pl.String(),
    "fallback_share": pl.Float64(),
    "position_role": pl.String(),
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "metric": pl.String(),
    "n": pl.Int64(),
    "mean_clean": pl.Float64(),
    "mean_ablated": pl.Float64(),
    "mean_effect": pl.Float64(),
    "sd_effect": pl.Float64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
    "null_n": pl.Int64(),
    "null_mean_kl": pl.Float64(),
    "null_ratio": pl.Float64(),
}


def random_prompts(model: LanguageModel, like: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """`n` prompts of BOS and random tokens, task NULL_TASK, as long as those of `like`.

    Without BOS where the study's prompts are. Their lengths are NULL_LENGTHS quantiles of n_tokens
    over `like`, equally often. Their "answer" is a random token too: only kl means something.
    """
    rng = random.Random(f"{NULL_TASK}/{seed}")
    first = [] if model.first_token_id is None else [model.first_token_id]
    shares = (np.arange(NULL_LENGTHS) + 0.5) / NULL_LENGTHS
    lengths = np.quantile(like["n_tokens"].to_numpy(), shares, method="nearest")
    rows = []
    for number in range(n):
        length = int(lengths[number % NULL_LENGTHS])
        *tokens, answer = rng.choices(model.ordinary_ids, k=length - len(first) + 1)
        rows.append(
            {
                "task": NULL_TASK,
                "prompt": number,
                "pair_id": number,
                "template": 0,
                "variant": BASE,
                "text": "",
                "token_ids": [*first, *tokens],
                "n_tokens": length,
                "roles": [END],
                "positions": [length - 1],
                "answer_token_ids": [answer],
                "wrong_token_ids": [],
            }
        )
    return pl.DataFrame(rows, schema=TASK_PROMPTS_SCHEMA, orient="row")


def head_effects(
    sweep: Sweep, null: Sweep | None = None, *, n_bootstrap: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """Table task_head_effects: one row per task, mode, head and metric.

    null: the same sweep of random_prompts, for the null columns of metric kl. Intervals are 95%
    percentile bootstrap intervals of the mean over prompts. A task of which no prompt has wrong
    tokens has no rows for logit_diff; where some have none, only the others count.
    """
    task_of = sweep.prompts["task"].to_numpy()
    rows: list[dict[str, object]] = []
    for task in dict.fromkeys(task_of.tolist()):
        chosen = task_of == task
        for metric in METRICS:
            clean = sweep.clean[metric][chosen]
            defined = ~np.isnan(clean)
            if not defined.any():
                continue
            clean = clean[defined]
            shares = {
                mode: float(fallen[chosen][defined].mean())
                for mode, fallen in sweep.falls_back.items()
            }
            values = sweep.ablated[metric][..., chosen][..., defined]
            for index in np.ndindex(*values.shape[:-1]):
                mode = sweep.modes[index[0]]
                rows.append(
                    {
                        "task": task,
                        "mode": mode,
                        "reference": reference_used(mode, shares.get(mode)),
                        "fallback_share": shares.get(mode),
                        "position_role": sweep.position_role,
                        "layer": index[1],
                        "head": index[2],
                        "metric": metric,
                        **_summary(clean, values[index], n_bootstrap, seed),
                        **_null(null, metric, index, float(values[index].mean())),
                    }
                )
    return pl.DataFrame(rows, schema=EFFECTS_SCHEMA, orient="row")


# ---- private -------------------------------------------------------------------------------------


def _summary(clean: Floats, ablated: Floats, n_bootstrap: int, seed: int) -> dict[str, object]:
    effect = ablated - clean
    low, high = mean_interval(effect, n_bootstrap=n_bootstrap, seed=seed)
    return {
        "n": len(effect),
        "mean_clean": float(clean.mean()),
        "mean_ablated": float(ablated.mean()),
        "mean_effect": float(effect.mean()),
        "sd_effect": float(effect.std(ddof=1)) if len(effect) > 1 else None,
        "ci_low": low,
        "ci_high": high,
    }


def _null(
    null: Sweep | None, metric: str, index: tuple[int, ...], mean: float
) -> dict[str, object]:
    if null is None or metric != "kl":
        return {}
    values = null.ablated["kl"][index]
    null_mean = float(values.mean())
    return {
        "null_n": len(values),
        "null_mean_kl": null_mean,
        "null_ratio": mean / null_mean if null_mean > 0 else None,
    }
