"""Which slices attention uses: how many, which ones, when a pair fires and when it does not.

Belongs here: tables attention_slice_counts and attention_slice_usage, on task prompts or any text.
Does not belong here: single pairs (slices.py), what wrote them (trace.py).

Source: Franco & Crovella 2024 (arXiv 2410.00340), Figures 2, 3 and 8. Memory does not grow with
prompts: only sums per head and singular vector are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.circuits.baseline import check_prompts_fit
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.residual import residual_stream
from mechinterp_assets.circuits.slices import firing_pairs, pair_slices, prompts_per_batch
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import equal_length_groups

USUAL_LENGTH = 20  # tokens of an IOI prompt

COUNTS_SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "n_slices": pl.Int32(),
    "n_pairs": pl.Int64(),
}
USAGE_SCHEMA: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "slice": pl.Int32(),
    "fires": pl.Boolean(),
    "n_pairs": pl.Int64(),
    "selected_share": pl.Float64(),
    "mean_term": pl.Float64(),
    "mean_term_share": pl.Float64(),
}


@dataclass(frozen=True)
class SliceUsage:
    """counts: pairs that fire by |S|. usage: per singular vector, for pairs that fire or do not."""

    counts: pl.DataFrame
    usage: pl.DataFrame


def text_of_the_same_lengths(sequences: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Text to compare prompts with: sequence i (column token_ids) cut to the length of prompt i.

    As many rows as the shorter of the two frames; columns prompt (from 0), token_ids, n_tokens.
    Without prompts every sequence is cut to USUAL_LENGTH.
    """
    ids = sequences["token_ids"].to_list()
    lengths = prompts["n_tokens"].to_list() or [USUAL_LENGTH] * len(ids)
    cut = [row[:length] for row, length in zip(ids, lengths, strict=False)]
    return pl.DataFrame(
        {
            "prompt": range(len(cut)),
            "token_ids": cut,
            "n_tokens": [len(row) for row in cut],
        },
        schema_overrides={"n_tokens": pl.Int32()},
    )


@torch.no_grad()
def slice_usage(
    model: LanguageModel,
    prompts: pl.DataFrame,
    *,
    threshold: float = 0.5,
    silent_pairs: int = 4,
    seed: int = 0,
    memory_mib: int = 512,
    omega: ModelOmega | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SliceUsage:
    """Slices of all heads' firing pairs and of `silent_pairs` others per prompt and head.

    prompts: columns prompt, token_ids and n_tokens are read, so any text will do. Silent pairs are
    drawn uniformly from the causal ones with source >= 1 that do not fire. Processed weights.
    Raises PromptError and CircuitError as attention_slices does.
    """
    check_prompts_fit(prompts, model)
    omega = omega or ModelOmega(model)
    config = model.config
    rank = min(config.d_head, config.d_model + 1)
    shape = (config.n_layers, config.n_heads, 2)
    n_pairs = torch.zeros(shape, dtype=torch.int64)
    sums = torch.zeros(*shape, 3, rank, dtype=torch.float64)
    counts = torch.zeros(*shape[:2], rank + 1, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    done = 0
    batch = prompts_per_batch(model, config.n_layers, memory_mib)
    for group, ids in equal_length_groups(prompts, batch):
        stream = residual_stream(model, ids, config.n_layers, device=omega.device)
        for layer in range(config.n_layers):
            x = stream.normalised(layer)
            length = x.shape[1]
            fires = firing_pairs(stream.pattern[layer], stream.score[layer], threshold)
            silent = _sample(fires, silent_pairs, generator)
            for head in range(config.n_heads):
                for at, mask in enumerate((silent[:, head], fires[:, head])):
                    b, i, j = mask.nonzero(as_tuple=True)
                    pairs = pair_slices(
                        omega, layer, head, x[b, i], x[b, j], i - j, length, reading_dtype=None
                    )
                    size = pairs.terms.abs().sum(-1, keepdim=True)
                    share = pairs.terms / size.clamp(min=torch.finfo(torch.float64).tiny)
                    parts = (pairs.selected.double(), pairs.terms, share)
                    n_pairs[layer, head, at] += len(b)
                    sums[layer, head, at] += torch.stack([p.sum(0) for p in parts]).cpu()
                # The firing pairs are the last of the two.
                found = pairs.selected.sum(-1).bincount(minlength=rank + 1)
                counts[layer, head] += found.cpu()
        done += group.height
        if progress is not None:
            progress(done, prompts.height)
    return SliceUsage(_counts_frame(counts.numpy()), _usage_frame(n_pairs.numpy(), sums.numpy()))


def _sample(fires: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Mask like `fires` of `count` causal pairs per prompt and head that do not fire."""
    length = fires.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool, device=fires.device).tril()
    causal[:, 0] = False
    keys = torch.rand(fires.shape, generator=generator).to(fires.device)
    keys = keys.masked_fill(fires | ~causal, -1).flatten(-2)
    values, places = keys.topk(min(count, keys.shape[-1]), dim=-1)
    chosen = torch.zeros_like(keys, dtype=torch.bool).scatter(-1, places, values >= 0)
    return chosen.reshape(fires.shape)


def _counts_frame(counts: np.ndarray) -> pl.DataFrame:
    layer, head, n_slices = np.nonzero(counts)
    columns = (layer, head, n_slices, counts[layer, head, n_slices])
    return pl.DataFrame(dict(zip(COUNTS_SCHEMA, columns, strict=True))).cast(
        pl.Schema(COUNTS_SCHEMA)
    )


def _usage_frame(n_pairs: np.ndarray, sums: np.ndarray) -> pl.DataFrame:
    rank = sums.shape[-1]
    layer, head, fires = np.nonzero(n_pairs)
    n = n_pairs[layer, head, fires]
    means = sums[layer, head, fires] / n[:, None, None]
    columns = (
        *(np.repeat(values, rank) for values in (layer, head)),
        np.tile(np.arange(rank), len(n)),
        np.repeat(fires == 1, rank),
        np.repeat(n, rank),
        *(means[:, at].ravel() for at in range(3)),
    )
    return pl.DataFrame(dict(zip(USAGE_SCHEMA, columns, strict=True))).cast(pl.Schema(USAGE_SCHEMA))
