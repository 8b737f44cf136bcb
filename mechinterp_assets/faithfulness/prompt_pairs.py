"""Pairs of a prompt and its counterfactual, as patching needs them.

Belongs here: choosing and checking pairs from task prompts, batches without padding trouble, the
direction whose dot product with the normed residual stream at END is the logit difference. Does not
belong here: making prompts (tasks/), running them.

Prompts of different lengths share a batch: they are padded behind END, which attention never looks
at, and END is read at its own position.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.faithfulness.edge_graph import FaithfulnessError
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.prompts.common import check_task_prompts


@dataclass(frozen=True)
class PromptBatch:
    """Pairs of prompts; padded behind END.

    prompt: number of each base prompt; clean, corrupt [b, T] token ids; end [b]: position of END;
    direction [b, d_model], offset [b]: logit difference = direction . norm(residual) + offset.
    """

    prompt: tuple[int, ...]
    clean: Tensor
    corrupt: Tensor
    end: Tensor
    direction: Tensor
    offset: Tensor

    def __len__(self) -> int:
        return len(self.prompt)

    def split(self, size: int) -> Iterator["PromptBatch"]:
        """Batches of at most `size` pairs."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            length = int(self.end[part].max()) + 1
            yield PromptBatch(
                self.prompt[part],
                self.clean[part, :length],
                self.corrupt[part, :length],
                self.end[part],
                self.direction[part],
                self.offset[part],
            )

    @property
    def first_difference(self) -> Tensor:
        """First position [b] at which a prompt and its counterfactual differ; END where none is."""
        differs = self.clean != self.corrupt
        return torch.where(differs.any(1), differs.int().argmax(1), self.end)

    def head(self, size: int) -> "PromptBatch":
        """The first `size` pairs."""
        return next(self.split(size))


def check_size(model: SplitModel, prompts: pl.DataFrame) -> None:
    """Raise FaithfulnessError for prompts that the model cannot read."""
    longest = int(prompts["n_tokens"].to_numpy().max())
    if longest > model.shape.n_ctx:
        raise FaithfulnessError(
            f"a prompt has {longest} tokens but {model.source} reads {model.shape.n_ctx}; leave it "
            "out"
        )
    highest = int(prompts["token_ids"].explode().to_numpy().max())
    if highest >= model.shape.d_vocab:
        raise FaithfulnessError(
            f"a prompt holds token id {highest} but {model.source} has {model.shape.d_vocab}; "
            "build the prompts with this model's tokenizer"
        )


def pairs_frame(prompts: pl.DataFrame, *, counterfactual: str) -> pl.DataFrame:
    """Base prompts of one task with other_ids and other_n of their counterfactuals.

    Raises FaithfulnessError as prompt_pairs does, for all but what the model cannot read.
    """
    check_task_prompts(prompts)
    if (tasks := prompts["task"].unique().sort().to_list()) != [prompts["task"][0]]:
        raise FaithfulnessError(f"prompts of several tasks are given ({tasks}); give one at a time")
    task = tasks[0]
    variants = prompts["variant"].unique().sort().to_list()
    for wanted in ("base", counterfactual):
        if wanted not in variants:
            raise FaithfulnessError(
                f"task {task} has no prompts of variant {wanted!r} (there are {variants}); add it "
                "to the study's variants or name another counterfactual"
            )
    base = prompts.filter(pl.col("variant") == "base").sort("prompt")
    other = prompts.filter(pl.col("variant") == counterfactual)
    if other["pair_id"].is_duplicated().any():
        raise FaithfulnessError(
            f"task {task} has several {counterfactual!r} prompts of one pair_id; keep one per pair"
        )
    pairs = base.join(
        other.select("pair_id", other_ids="token_ids", other_n="n_tokens"),
        on="pair_id",
        how="inner",
        maintain_order="left",
    )
    if pairs.is_empty():
        raise FaithfulnessError(f"task {task}: no {counterfactual!r} prompt shares a pair_id")
    uneven = pairs.filter(pl.col("n_tokens") != pl.col("other_n"))
    if uneven.height:
        row = uneven.row(0, named=True)
        raise FaithfulnessError(
            f"task {task}, prompt {row['prompt']}: it has {row['n_tokens']} tokens and its "
            f"{counterfactual!r} variant {row['other_n']}; patching needs pairs of equal length"
        )
    if (pairs["wrong_token_ids"].list.len() == 0).any():
        raise FaithfulnessError(
            f"task {task} has prompts without wrong answers, so no logit difference is defined"
        )
    return pairs


def prompt_pairs(
    model: SplitModel, prompts: pl.DataFrame, *, counterfactual: str, count: int | None = None
) -> PromptBatch:
    """The first `count` base prompts of one task, each with its variant `counterfactual`.

    prompts: rows of TASK_PROMPTS_SCHEMA of one task. The metric's tokens are those of the base
    prompt, in both runs. Raises FaithfulnessError for a variant or wrong answers that are not
    there, pairs of unequal length and prompts that the model cannot read.
    """
    pairs = pairs_frame(prompts, counterfactual=counterfactual)
    pairs = pairs.head(count or pairs.height)
    check_size(model, pairs)
    direction, offset = _directions(model, pairs)
    return PromptBatch(
        prompt=tuple(pairs["prompt"].to_list()),
        clean=padded(pairs["token_ids"].to_list(), model.device),
        corrupt=padded(pairs["other_ids"].to_list(), model.device),
        end=torch.tensor(pairs["n_tokens"].to_list(), device=model.device) - 1,
        direction=direction,
        offset=offset,
    )


def padded(rows: list[list[int]], device: torch.device) -> Tensor:
    """Token ids [b, T], each row padded with its last token."""
    length = max(map(len, rows))
    return torch.tensor([[*ids, *[ids[-1]] * (length - len(ids))] for ids in rows], device=device)


def _directions(model: SplitModel, prompts: pl.DataFrame) -> tuple[Tensor, Tensor]:
    """Mean W_U column of the answers less that of the wrong tokens, and the same of b_U."""
    directions, offsets = [], []
    for answers, wrong in prompts.select("answer_token_ids", "wrong_token_ids").iter_rows():
        directions.append(model.W_U[:, answers].mean(1) - model.W_U[:, wrong].mean(1))
        offsets.append(model.b_U[answers].mean() - model.b_U[wrong].mean())
    return torch.stack(directions), torch.stack(offsets)


def logit_difference(model: SplitModel, batch: PromptBatch, at_end: Tensor) -> Tensor:
    """Logit difference [...] of residual streams at END [..., b, d_model]."""
    return (model.normalise(at_end) * batch.direction).sum(-1) + batch.offset
