"""Attention sinks and massive activations: frames `attention_sinks` and `massive_activations`.

Belongs here: attention to the first positions, sizes of their keys and values, the largest entries
of the residual stream. Does not belong here: the score attention_sink, which gives the role
(scores/attention_sink.py).

Sources: Gu et al. 2024 (arXiv 2410.10781), section 3 (alpha_k, key norms, value norms, cosine); Sun
et al. 2024 (arXiv 2402.17762), section 2 (massive activations). Raw weights. Positions count from
0 here, from 1 in the papers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads.datasets import (
    TokenDataset,
    fitting_length,
    fitting_period,
    random_tokens,
    repeated_random_tokens,
    text_windows,
)
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.identities import identities_of
from mechinterp_assets.model.kept_run import run_and_keep
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64

POSITIONS = 4
LARGEST = 3
MAXIMUM_SEQUENCES = 32
ATTENTION_SINKS_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32(),
        "head": pl.Int32(),
        "tokens": pl.String(),
        "with_bos": pl.Boolean(),
        "position": pl.Int32(),
        "mean_attention": pl.Float64(),
        "uniform_attention": pl.Float64(),
        "key_norm": pl.Float64(),
        "value_norm": pl.Float64(),
        "query_key_cosine": pl.Float64(),
        "output_norm": pl.Float64(),
        "n_sequences": pl.Int64(),
        "n_positions": pl.Int32(),
        "dataset": pl.String(),
    }
)
MASSIVE_ACTIVATIONS_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32(),
        "tokens": pl.String(),
        "with_bos": pl.Boolean(),
        "rank": pl.Int32(),
        "magnitude": pl.Float64(),
        "median": pl.Float64(),
        "magnitude_ratio": pl.Float64(),
        "position": pl.Int32(),
        "dimension": pl.Int32(),
        "place_share": pl.Float64(),
        "n_sequences": pl.Int64(),
        "n_positions": pl.Int32(),
        "dataset": pl.String(),
    }
)


@dataclass(frozen=True)
class Sinks:
    """Both frames, without the column study."""

    attention_sinks: pl.DataFrame
    massive_activations: pl.DataFrame


def sink_datasets(
    model: LanguageModel, settings: HeadSettings, text: Tensor, text_name: str
) -> dict[str, TokenDataset]:
    """Natural text, random tokens and repeated random tokens, BOS first, as long as fits.

    At most MAXIMUM_SEQUENCES of each: what is measured varies little between sequences.
    """
    n, seed = settings.sequences, settings.seed
    length = fitting_length(model, min(settings.sink_length, text.shape[1]))
    n = min(n, MAXIMUM_SEQUENCES)
    return {
        "natural": text_windows(model, text[:n], length=length, name=text_name),
        "random": random_tokens(model, n_sequences=n, length=length, seed=seed),
        "repeated": repeated_random_tokens(
            model,
            n_sequences=n,
            period=fitting_period(model, settings.repeat_length),
            seed=seed,
        ),
    }


def sinks(model: LanguageModel, datasets: dict[str, TokenDataset], *, batch_size: int = 8) -> Sinks:
    """Attention to the first POSITIONS positions and the LARGEST residual entries, all layers.

    `datasets`: kind of tokens (natural, random, repeated) -> sequences. Each is run with BOS at its
    first position, and once more without that position, so that the first is an ordinary token.
    That is so for studies without BOS too: what stands first in their sequences gives way to it.
    """
    attention, massive = [], []
    for kind, data in datasets.items():
        for with_bos in (True, False):
            ids = data.token_ids[:, 1:]
            if with_bos:
                ids = torch.nn.functional.pad(ids, (1, 0), value=model.bos_token_id)
            found = _measure(model, ids, batch_size)
            labels = {
                "tokens": pl.lit(kind),
                "with_bos": pl.lit(with_bos),
                "n_sequences": pl.lit(len(ids)),
                "n_positions": pl.lit(ids.shape[1]),
                "dataset": pl.lit(data.name),
            }
            attention.append(found.attention_frame().with_columns(**labels))
            massive.append(found.massive_frame().with_columns(**labels))
    return Sinks(
        pl.concat(attention).select(ATTENTION_SINKS_SCHEMA.keys()).cast(ATTENTION_SINKS_SCHEMA),
        pl.concat(massive)
        .select(MASSIVE_ACTIVATIONS_SCHEMA.keys())
        .cast(MASSIVE_ACTIVATIONS_SCHEMA),
    )


# ---- private -------------------------------------------------------------------------------------


@dataclass
class _Measured:
    """Means over sequences; lists grow by batch.

    attention, key_norm, value_norm, query_key_cosine, output_norm: [layer, head, position] sums.
    largest [layer] of lists of [sequence, LARGEST]; place: the same, flat index position x d_model.
    """

    length: int
    d_model: int
    sums: dict[str, Tensor] = field(default_factory=dict)
    n: int = 0
    largest: list[list[Tensor]] = field(default_factory=list)
    place: list[list[Tensor]] = field(default_factory=list)
    median: list[list[Tensor]] = field(default_factory=list)

    def attention_frame(self) -> pl.DataFrame:
        shape = self.sums["mean_attention"].shape
        index = torch.cartesian_prod(*(torch.arange(size) for size in shape))
        uniform = torch.tensor(
            [
                sum(1 / (t + 1) for t in range(k, self.length)) / (self.length - k)
                for k in range(shape[2])
            ],
            dtype=torch.float64,
        )
        return pl.DataFrame(
            {
                **{name: index[:, i].numpy() for i, name in enumerate(("layer", "head"))},
                "position": index[:, 2].numpy(),
                "uniform_attention": uniform[index[:, 2]].numpy(),
                **{name: (total / self.n).flatten().numpy() for name, total in self.sums.items()},
            }
        )

    def massive_frame(self) -> pl.DataFrame:
        rows = []
        for layer, batches in enumerate(self.largest):
            largest, place = torch.cat(batches), torch.cat(self.place[layer])
            median = float(torch.cat(self.median[layer]).mean())
            for rank in range(LARGEST):
                where, count = torch.unique(place[:, rank], return_counts=True)
                most = int(where[count.argmax()])
                magnitude = float(largest[:, rank].mean())
                rows.append(
                    {
                        "layer": layer,
                        "rank": rank,
                        "magnitude": magnitude,
                        "median": median,
                        "magnitude_ratio": magnitude / median if median > 0 else None,
                        "position": most // self.d_model,
                        "dimension": most % self.d_model,
                        "place_share": int(count.max()) / len(place),
                    }
                )
        return pl.DataFrame(rows, schema_overrides={"magnitude_ratio": pl.Float64()})


@torch.no_grad()
def _measure(model: LanguageModel, token_ids: Tensor, batch_size: int) -> _Measured:
    config, weights = model.config, model.raw_weights
    known = model.raw.hook_dict  # a property that lists all hooks anew
    attention = [
        name
        for layer in range(config.n_layers)
        for what in ("q", "k", "v", "pattern", "rot_q", "rot_k")
        if (name := f"blocks.{layer}.attn.hook_{what}") in known
    ]
    resid = [f"blocks.{layer}.hook_resid_post" for layer in range(config.n_layers)]
    n_positions = min(POSITIONS, token_ids.shape[1])
    found = _Measured(token_ids.shape[1], config.d_model)
    shape = (config.n_layers, config.n_heads, n_positions)
    for name in ("mean_attention", "key_norm", "value_norm", "query_key_cosine", "output_norm"):
        found.sums[name] = torch.zeros(shape, dtype=torch.float64)
    for batches in (found.largest, found.place, found.median):
        batches += [[] for _ in resid]
    for ids in torch.split(token_ids, batch_size):
        _, kept = run_and_keep(
            model.raw, ids.to(model.device), [*attention, *resid], last_logits_only=True
        )
        found.n += len(ids)
        for layer in range(config.n_layers):
            v, pattern = (
                float64(kept[f"blocks.{layer}.attn.hook_{what}"]) for what in ("v", "pattern")
            )
            q, k = (_as_attended(model, layer, what, kept) for what in ("q", "k"))
            _add_heads(found, layer, q, k, v, pattern, float64(weights.W_O[layer]))
            flat = kept[resid[layer]].abs().flatten(1)
            top = flat.topk(LARGEST, dim=1)
            found.largest[layer].append(float64(top.values).cpu())
            found.place[layer].append(top.indices.cpu())
            found.median[layer].append(float64(flat.median(dim=1).values).cpu())
    return found


def _as_attended(model: LanguageModel, layer: int, what: str, kept: Mapping[str, Tensor]) -> Tensor:
    """Queries or keys [sequence, position, head, d_head] as attention multiplies them: rotated.

    Not all attention layers of the bridge call the hook behind the rotation: where they do not, it
    is made here.
    """
    if (rotated := kept.get(f"blocks.{layer}.attn.hook_rot_{what}")) is not None:
        return float64(rotated)
    x = float64(kept[f"blocks.{layer}.attn.hook_{what}"])
    return identities_of(model).attention[layer].turned(x)


def _add_heads(
    found: _Measured, layer: int, q: Tensor, k: Tensor, v: Tensor, pattern: Tensor, W_O: Tensor
) -> None:
    """Add a batch of one layer: q, k, v [sequence, position, head, d_head], pattern, W_O."""
    n_positions = found.sums["mean_attention"].shape[2]
    group = q.shape[2] // k.shape[2]
    k = k[:, :n_positions].repeat_interleave(group, dim=2)
    v = v[:, :n_positions].repeat_interleave(group, dim=2)
    length = q.shape[1]
    # A source is seen by the destinations from its own position on.
    seen = torch.ones(length, n_positions, device=q.device, dtype=torch.float64).tril()
    count = seen.sum(dim=0)
    attention = (pattern[..., :n_positions] * seen).sum(dim=2) / count  # [sequence, head, position]
    cosine = torch.einsum(
        "bthe,bkhe->bhtk",
        torch.nn.functional.normalize(q, dim=-1),
        torch.nn.functional.normalize(k, dim=-1),
    )
    output = torch.einsum("bkhe,hed->bkhd", v, W_O).norm(dim=-1).transpose(1, 2)
    values = {
        "mean_attention": attention,
        "key_norm": k.norm(dim=-1).transpose(1, 2),
        "value_norm": v.norm(dim=-1).transpose(1, 2),
        "query_key_cosine": (cosine * seen).sum(dim=2) / count,
        "output_norm": attention * output,
    }
    for name, value in values.items():
        found.sums[name][layer] += value.sum(dim=0).cpu()
