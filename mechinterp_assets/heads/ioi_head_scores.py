"""The frame `ioi_head_scores`: scores of heads that need IOI prompts.

Belongs here: the pass over the prompts that scores share, who is compared with the movers, and the
frame. Does not belong here: any one score (a file each in `scores/`), role labels (the SQL view
head_roles).

Source: Wang et al. 2022 (arXiv 2211.00593), section 3. Processed weights.
"""

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.heads.mover_runs import answer_ids, logit_difference
from mechinterp_assets.heads.score_kinds import Head, IoiScore, MoverPrompts, MoverScore
from mechinterp_assets.heads.score_registry import scores_that_hold
from mechinterp_assets.heads.score_values import ScoreValues, joined_scores, score_frame
from mechinterp_assets.model.kept_run import run_and_keep
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.names import head_name
from mechinterp_assets.prompts.ioi import PromptError, equal_length_groups

MINIMUM_NAMES = 4


def ioi_head_scores(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    max_prompts: int = 64,
    dataset: str = "IOI prompts",
) -> pl.DataFrame:
    """Every score of the clean run of base IOI prompts, of every head.

    `prompts`: rows of table ioi_prompts with variant base. `max_prompts`: rows of a forward pass.
    Raises PromptError for prompts that cannot be run or name fewer than MINIMUM_NAMES people.
    """
    pool = name_pool(model, prompts)
    found = ioi_score_values(model, prompts, pool, max_prompts=max_prompts)
    name = f"{dataset} {model.sequence_start} ({prompts.height}, {len(pool)} names)"
    return joined_scores(
        score_frame(score.name, found[score.name], score.threshold, name)
        for score in scores_that_hold(IoiScore, model)
    )


def name_pool(model: LanguageModel, prompts: pl.DataFrame) -> Tensor:
    """Token ids of all names in the prompts [name], ascending. Raises PromptError."""
    check_prompts_fit(prompts, model)
    columns = [prompts["io_token_id"], prompts["s_token_id"]]
    pool = pl.concat([column.alias("id") for column in columns]).unique().sort()
    if len(pool) < MINIMUM_NAMES:
        raise PromptError(
            f"the prompts name {len(pool)} people; at least {MINIMUM_NAMES} are needed for the null"
            " (another name in place of the answer): give more prompts"
        )
    return torch.tensor(pool.to_list())


@torch.no_grad()
def ioi_score_values(
    model: LanguageModel, prompts: pl.DataFrame, pool: Tensor, *, max_prompts: int = 64
) -> dict[str, ScoreValues]:
    """Values of every IoiScore by name, from one pass over the prompts.

    pool [name]: token ids of all names.
    """
    statistics = {
        score.name: score.statistic(model, pool) for score in scores_that_hold(IoiScore, model)
    }
    wanted = sorted({name for one in statistics.values() for name in one.activations})
    for group, ids in equal_length_groups(prompts, max_prompts):
        _, kept = run_and_keep(model.processed, ids.to(model.device), wanted, last_logits_only=True)
        for statistic in statistics.values():
            statistic.add(group, ids, kept)
    return {name: statistic.result() for name, statistic in statistics.items()}


@torch.no_grad()
def mover_scores(
    model: LanguageModel,
    prompts: pl.DataFrame,
    movers: Sequence[Head],
    *,
    patched_prompts: int = 32,
    max_prompts: int = 64,
    max_rows: int = 512,
    dataset: str = "IOI prompts",
) -> pl.DataFrame:
    """Every score relative to the movers, of every head that has one.

    `prompts`: rows of table ioi_prompts; variants base and ABC are used. `movers`: (layer, head).
    Thresholds are shares of the mean clean logit difference. No rows where there are no movers, no
    ABC prompts, or no logit difference to take a share of (its mean more than 3 standard errors
    above 0). Other arguments: MoverPrompts.
    Raises PromptError for movers that do not exist and prompts that do not belong together.
    """
    base, abc = (prompts.filter(pl.col("variant") == name) for name in ("base", "ABC"))
    layers, heads = model.config.n_layers, model.config.n_heads
    if odd := [one for one in movers if not (0 <= one[0] < layers and 0 <= one[1] < heads)]:
        raise PromptError(
            f"mover {head_name(*odd[0])} does not exist: {model.source} has {layers} layers of "
            f"{heads} heads; correct heads.movers"
        )
    if not movers or abc.is_empty():
        return joined_scores([])
    seen = MoverPrompts(
        base=base,
        abc=abc,
        movers=tuple(movers),
        pool=name_pool(model, base),
        patched_prompts=patched_prompts,
        max_prompts=max_prompts,
        max_rows=max_rows,
        dataset=f"{dataset} {model.sequence_start}",
    )
    differences = _logit_differences(model, base, max_prompts)
    difference, error = differences.mean(), differences.std() / len(differences) ** 0.5
    if not difference > 3 * error:
        return joined_scores([])
    frames = []
    for score in scores_that_hold(MoverScore, model):
        values = score.compute(model, seen)
        if values is not None:
            threshold = score.threshold_share * float(difference)
            frames.append(score_frame(score.name, values, threshold))
    return joined_scores(frames)


# ---- private -------------------------------------------------------------------------------------


def _logit_differences(model: LanguageModel, base: pl.DataFrame, max_prompts: int) -> Tensor:
    """logit(IO) - logit(S) of the untouched model, prompt by prompt [prompt]."""
    found = []
    for group, ids in equal_length_groups(base, max_prompts):
        logits, _ = run_and_keep(model.processed, ids.to(model.device), [], last_logits_only=True)
        found.append(logit_difference(logits[:, -1], *answer_ids(group, model.device)))
    return torch.cat(found)
