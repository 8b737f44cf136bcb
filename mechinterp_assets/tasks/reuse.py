"""Do two tasks use the same heads? Overlap of their top heads, and what one's heads do for another.

Belongs here: ranking heads by effect, overlap against chance, normalising faithfulness. Does not
belong here: the runs (ablation.py).

Merullo et al. 2024 (arXiv 2310.08744) report the overlap of two circuits in GPT-2 medium, 78%, from
path patching with thresholds of their own. Here heads are ranked by ablation, at several shares of
all heads, with what chance gives: the overlap of two random sets of k of N heads is hypergeometric.
Overlap alone does not say that the shared heads do the same for both tasks, nor that they are
specific; the faithfulness matrix runs each task on another's heads, beside random sets.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.stats import hypergeom, spearmanr
from torch import Tensor

from mechinterp_assets.ablation.modes import Mode, reference_used
from mechinterp_assets.ablation.references import LeaveOneOutMeans
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.names import head_name
from mechinterp_assets.statistics.bootstrap import resample_counts
from mechinterp_assets.tasks.ablation import Floats, run_head_sets

Ranking = Literal["harm", "absolute"]
RANKINGS: tuple[Ranking, ...] = ("harm", "absolute")
# Sign with which an effect harms the task.
HARM: Mapping[str, int] = {"loss": 1, "logit_diff": -1}
MODE: Mode = "mean_leave_one_out"  # of heads that are not kept
RANDOM_SETS = 5
NONE_KEPT, ALL_KEPT = 0, 1  # places of these sets among those that are run

REUSE_SCHEMA: dict[str, Any] = {
    "task_a": pl.String(),
    "task_b": pl.String(),
    "mode": pl.String(),
    "reference": pl.String(),
    "metric": pl.String(),
    "head_ranking": pl.String(),
    "top_share": pl.Float64(),
    "n_model_heads": pl.Int32(),
    "n_top_heads": pl.Int32(),
    "n_shared": pl.Int32(),
    "expected_shared": pl.Float64(),
    "p_value": pl.Float64(),
    "jaccard": pl.Float64(),
    "expected_jaccard": pl.Float64(),
    "rank_correlation": pl.Float64(),
    "shared_heads": pl.List(pl.String()),
}
FAITHFULNESS_SCHEMA: dict[str, Any] = {
    "heads_of": pl.String(),
    "measured_on": pl.String(),
    "mode": pl.String(),
    "reference": pl.String(),
    "fallback_share": pl.Float64(),
    "metric": pl.String(),
    "top_share": pl.Float64(),
    "n_kept": pl.Int32(),
    "n": pl.Int64(),
    "held_out": pl.Boolean(),
    "mean_clean": pl.Float64(),
    "mean_kept": pl.Float64(),
    "mean_none_kept": pl.Float64(),
    "faithfulness": pl.Float64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
    "random_faithfulness": pl.Float64(),
    "random_sets": pl.Int32(),
}


def n_top_heads(share: float, n_heads: int) -> int:
    """Size of a top set: the share of all heads, rounded, at least 1."""
    return max(1, round(share * n_heads))


def top_heads(effects: Floats, n: int, metric: str, ranking: Ranking) -> NDArray[np.int64]:
    """Flat indices of the `n` heads with the largest effects [layer, head] on a metric.

    harm: those that make the task worse most when ablated; absolute: those that change it most.
    Ties go to the earlier head.
    """
    return np.argsort(-_strength(effects, metric, ranking).ravel(), kind="stable")[:n]


def component_reuse(effects: pl.DataFrame, shares: Sequence[float]) -> pl.DataFrame:
    """Table component_reuse: one row per pair of tasks, mode, metric, ranking and share.

    effects: rows of task_head_effects. Pairs in which a task lacks the metric have no row.
    """
    rows: list[dict[str, object]] = []
    chosen = effects.filter(pl.col("metric").is_in(list(HARM)))
    for (mode, metric), frame in chosen.group_by(["mode", "metric"], maintain_order=True):
        matrices = effect_matrices(frame)
        for a, b in combinations(matrices, 2):
            for ranking in RANKINGS:
                strengths = [_strength(matrices[t], str(metric), ranking) for t in (a, b)]
                correlation = _rank_correlation(*strengths)
                for share in shares:
                    common = {"task_a": a, "task_b": b, "mode": mode, "metric": metric}
                    common["reference"] = _reference(frame, (a, b))
                    rows.append(
                        {
                            **common,
                            "head_ranking": ranking,
                            "top_share": share,
                            **overlap(matrices[a], matrices[b], share, str(metric), ranking),
                            "rank_correlation": correlation,
                        }
                    )
    return pl.DataFrame(rows, schema=REUSE_SCHEMA, orient="row")


def overlap(a: Floats, b: Floats, share: float, metric: str, ranking: Ranking) -> dict[str, object]:
    """Heads that two tasks share among their top ones, and what chance gives."""
    total, n = a.size, n_top_heads(share, a.size)
    tops = [top_heads(effects, n, metric, ranking) for effects in (a, b)]
    shared = np.intersect1d(tops[0], tops[1])
    sizes = np.arange(max(0, 2 * n - total), n + 1)
    chance = hypergeom.pmf(sizes, total, n, n)
    return {
        "n_model_heads": total,
        "n_top_heads": n,
        "n_shared": len(shared),
        "expected_shared": n * n / total,
        "p_value": float(hypergeom.sf(len(shared) - 1, total, n, n)),
        "jaccard": len(shared) / (2 * n - len(shared)),
        "expected_jaccard": float((chance * sizes / (2 * n - sizes)).sum()),
        "shared_heads": [head_name(*divmod(i, a.shape[1])) for i in shared],
    }


def effect_matrices(effects: pl.DataFrame) -> dict[str, Floats]:
    """Task -> mean_effect [layer, head], from rows of one mode and metric."""
    shape = tuple(int(effects[axis].to_numpy().max()) + 1 for axis in ("layer", "head"))
    matrices: dict[str, Floats] = {}
    for task, layer, head, effect in effects.select(
        "task", "layer", "head", "mean_effect"
    ).iter_rows():
        matrices.setdefault(task, np.full(shape, np.nan))[layer, head] = effect
    return matrices


def fresh_prompts(base: pl.DataFrame, n: int) -> tuple[pl.DataFrame, frozenset[str]]:
    """Of each task the `n` prompts behind its first `n`, which were used to rank heads.

    Tasks with fewer than 2 `n` prompts give their first `n` again. Returns the prompts, and the
    tasks whose prompts are fresh.
    """
    place = pl.int_range(pl.len()).over("task")
    fresh = pl.len().over("task") >= 2 * n
    first = pl.when(fresh).then(n).otherwise(0)
    chosen = base.filter((place >= first) & (place < first + n))
    return chosen, frozenset(base.filter(fresh)["task"])


def reuse_faithfulness(
    model: LanguageModel,
    prompts: pl.DataFrame,
    effects: pl.DataFrame,
    means: LeaveOneOutMeans,
    *,
    kept_share: float,
    held_out: Collection[str] = (),
    n_bootstrap: int = 1000,
    seed: int = 0,
    batch_rows: int = 256,
) -> pl.DataFrame:
    """Table component_reuse_faithfulness: each task run on the top heads of each task alone.

    All other heads are ablated, mode mean_leave_one_out, MLPs stay. prompts: rows of
    TASK_PROMPTS_SCHEMA; effects: rows of task_head_effects, that mode among them. A task's heads
    are the `kept_share` whose ablation harms the measured metric most on it; held_out: tasks whose
    `prompts` took no part in that.
    faithfulness = (kept - none kept) / (clean - none kept), of means over prompts; its interval
    resamples prompts. random_faithfulness: mean over RANDOM_SETS random head sets of the same size.
    Raises PromptError or AblationError before any run.
    """
    total = model.config.n_layers * model.config.n_heads
    n = n_top_heads(kept_share, total)
    generator = np.random.default_rng(seed)
    random_sets = [generator.choice(total, n, replace=False) for _ in range(RANDOM_SETS)]
    # No head, all heads, those of every metric and task that has it, and last the random ones.
    sets = [np.array([], dtype=np.int64), np.arange(total)]
    places: dict[tuple[str, str], int] = {}
    of_mean = effects.filter((pl.col("mode") == MODE) & pl.col("metric").is_in(list(HARM)))
    for (metric,), frame in of_mean.group_by(["metric"], maintain_order=True):
        for task, matrix in effect_matrices(frame).items():
            places[str(metric), task] = len(sets)
            sets.append(top_heads(matrix, n, str(metric), "harm"))
    kept = _masks([*sets, *random_sets], model.config.n_layers, model.config.n_heads)

    rows: list[dict[str, object]] = []
    task_of = prompts["task"].to_numpy()
    for task in dict.fromkeys(task_of.tolist()):
        chosen = task_of == task
        own = prompts.filter(pl.Series(chosen))
        runs = run_head_sets(model, own, kept, means, batch_rows=batch_rows)
        fallen = np.array(means.falls_back(own))
        for (metric, other), place in places.items():
            defined = ~np.isnan(runs[metric][ALL_KEPT])
            if not defined.any():
                continue
            values = _faithfulness(runs[metric][:, defined], place, n_bootstrap, seed)
            share = float(fallen[defined].mean())
            rows.append(
                {
                    "heads_of": other,
                    "measured_on": task,
                    "mode": MODE,
                    "reference": reference_used(MODE, share),
                    "fallback_share": share,
                    "metric": metric,
                    "top_share": kept_share,
                    "n_kept": n,
                    "held_out": task in held_out,
                    **values,
                    "random_sets": RANDOM_SETS,
                }
            )
    return pl.DataFrame(rows, schema=FAITHFULNESS_SCHEMA, orient="row")


# ---- private -------------------------------------------------------------------------------------


def _strength(effects: Floats, metric: str, ranking: Ranking) -> Floats:
    return np.abs(effects) if ranking == "absolute" else HARM[metric] * effects


def _reference(effects: pl.DataFrame, tasks: Sequence[str]) -> str | None:
    """Reference of two tasks' effects, which are all of one mode."""
    used = set(effects.filter(pl.col("task").is_in(tasks))["reference"].to_list())
    return used.pop() if len(used) == 1 else "own_cell_and_task"


def _rank_correlation(a: Floats, b: Floats) -> float | None:
    """Spearman's; None where all heads of a task have the same strength."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a.ravel(), b.ravel()).statistic)


def _masks(sets: Sequence[NDArray[np.int64]], n_layers: int, n_heads: int) -> Tensor:
    masks = torch.zeros(len(sets), n_layers * n_heads, dtype=torch.bool)
    for row, heads in enumerate(sets):
        masks[row, torch.from_numpy(heads)] = True
    return masks.view(len(sets), n_layers, n_heads)


def _faithfulness(runs: Floats, place: int, n_bootstrap: int, seed: int) -> dict[str, object]:
    """Of the set at `place`; runs [set, prompt], random sets last."""
    clean, none_kept, n = runs[ALL_KEPT], runs[NONE_KEPT], runs.shape[1]
    mean = [float(values.mean()) for values in (clean, runs[place], none_kept)]
    weights = resample_counts(n, n_bootstrap, seed)
    resampled = _share(weights @ runs[place], weights @ clean, weights @ none_kept)
    random = _share(runs[-RANDOM_SETS:].mean(axis=1), clean.mean(), none_kept.mean())
    low, high = np.quantile(resampled, [0.025, 0.975]) if n > 1 else (np.nan, np.nan)
    values = {
        "faithfulness": float(_share(np.array(mean[1]), mean[0], mean[2])),
        "ci_low": float(low),
        "ci_high": float(high),
        "random_faithfulness": float(random.mean()),
    }
    return {
        "n": n,
        **dict(zip(("mean_clean", "mean_kept", "mean_none_kept"), mean, strict=True)),
        **{name: value if np.isfinite(value) else None for name, value in values.items()},
    }


def _share(kept: Floats, clean: Floats | float, none_kept: Floats | float) -> Floats:
    """(kept - none kept) / (clean - none kept); NaN where ablating all heads changes nothing."""
    whole = np.asarray(clean - none_kept, dtype=np.float64)
    part = np.asarray(kept - none_kept, dtype=np.float64)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=np.abs(whole) > 1e-9)
