"""How well the untouched model answers IOI prompts.

Belongs here: the logits and probabilities of the two names at END. Does not belong here: any
intervention.
"""

from collections.abc import Callable

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import PromptError, equal_length_groups

_SCHEMA = {
    "prompt": pl.Int64(),
    "bos_token": pl.String(),
    "logit_io": pl.Float64(),
    "logit_s": pl.Float64(),
    "logit_diff": pl.Float64(),
    "prob_io": pl.Float64(),
    "prob_s": pl.Float64(),
    "prefers_io": pl.Boolean(),
    "top_token_id": pl.Int32(),
}


def check_prompts_fit(prompts: pl.DataFrame, model: LanguageModel) -> None:
    """Raise PromptError when prompts are none, too long or hold ids the model does not have."""
    if prompts.is_empty():
        raise PromptError("no prompts; pass at least one row of ioi_prompts")
    longest = int(prompts["n_tokens"].to_numpy().max())
    if longest > model.config.n_ctx:
        raise PromptError(
            f"a prompt has {longest} tokens but {model.source} reads {model.config.n_ctx}; use "
            "shorter templates"
        )
    highest = int(prompts["token_ids"].explode().to_numpy().max())
    if highest >= model.config.d_vocab:
        raise PromptError(
            f"a prompt holds token id {highest} but {model.source} has {model.config.d_vocab}; "
            "build the prompts with this model's tokenizer"
        )


@torch.no_grad()
def ioi_baseline(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    max_prompts: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Table ioi_baseline: one row per prompt, in the order of `prompts`; raw weights.

    Prompts of equal length run together, at most `max_prompts` at a time, without padding.
    Probabilities are over the whole vocabulary. Raises PromptError as check_prompts_fit does.
    """
    check_prompts_fit(prompts, model)
    bos = pl.lit(model.bos_label if model.bos.prepended else None, pl.String)
    frames: list[pl.DataFrame] = []
    done = 0
    for group, ids in equal_length_groups(prompts, max_prompts):
        logits: Tensor = model.hf(ids.to(model.device), logits_to_keep=1).logits[:, -1]
        frames.append(_rows(group, logits.double()).with_columns(bos_token=bos).select(*_SCHEMA))
        done += group.height
        if progress is not None:
            progress(done, prompts.height)
    order = prompts.select("prompt").with_row_index("_row")
    return pl.concat(frames).join(order, on="prompt").sort("_row").drop("_row")


def _rows(group: pl.DataFrame, logits: Tensor) -> pl.DataFrame:
    def column(name: str) -> Tensor:
        ids = torch.tensor(group[name].to_list(), device=logits.device)
        return ids[:, None]

    io, s = column("io_token_id"), column("s_token_id")
    logit_io, logit_s = logits.gather(1, io)[:, 0], logits.gather(1, s)[:, 0]
    probabilities = logits.softmax(-1)
    return pl.DataFrame(
        {
            "prompt": group["prompt"],
            "logit_io": logit_io.cpu().numpy(),
            "logit_s": logit_s.cpu().numpy(),
            "logit_diff": (logit_io - logit_s).cpu().numpy(),
            "prob_io": probabilities.gather(1, io)[:, 0].cpu().numpy(),
            "prob_s": probabilities.gather(1, s)[:, 0].cpu().numpy(),
            "prefers_io": (logit_io > logit_s).cpu().numpy(),
            "top_token_id": logits.argmax(-1).cpu().numpy(),
        },
        schema_overrides={name: kind for name, kind in _SCHEMA.items() if name != "bos_token"},
    )
