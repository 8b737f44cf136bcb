"""Induction by prefix length: how many matching tokens a head needs (K24 section 4.2, Fig. 4).

Belongs here: the sequences with a copied block of p random tokens, attention to the induction
source and direct logit attribution by p. Does not belong here: real text (prefix_corpus.py), edits
of it (prefix_intervention.py), the classes of heads (SQL view prefix_induction_heads).

Layout of a sequence of prefix length p: BOS, then random distinct tokens; the p tokens at a1 ..
a1+p-1 stand again at a2 .. a2+p-1. Destination d = a2+p-1 is the last copied token, source s = a1+p
is the token after the first copy: an induction head attends d -> s and raises the logit of the
token at s. The tokens before the two copies differ, so exactly p tokens match.

d, s and the random tokens are drawn once and shared by all p: the scores of two prefix lengths
differ by the match alone. The source, its distance to d and the token to predict are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.heads.datasets import DatasetError, fitting_length, random_tokens
from mechinterp_assets.heads.settings import PrefixInductionSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import last_position
from mechinterp_assets.model.precision import float64
from mechinterp_assets.statistics.bootstrap import cluster_bootstrap

LONGEST_PREFIX = 9
SEQUENCE_LENGTH = 48  # tokens of a random sequence

PREFIX_INDUCTION_SCHEMA: dict[str, Any] = {
    "layer": pl.Int32,
    "head": pl.Int32,
    "prefix_length": pl.Int32,
    "n": pl.Int64,
    "mean_attention": pl.Float64,
    "attention_sd": pl.Float64,
    "attention_ci_low": pl.Float64,
    "attention_ci_high": pl.Float64,
    "attention_gain": pl.Float64,
    "attention_gain_ci_low": pl.Float64,
    "attention_gain_ci_high": pl.Float64,
    "null_mean": pl.Float64,
    "null_sd": pl.Float64,
    "dla": pl.Float64,
    "dla_null_mean": pl.Float64,
    "dla_null_sd": pl.Float64,
    "dla_excess": pl.Float64,
    "dla_excess_ci_low": pl.Float64,
    "dla_excess_ci_high": pl.Float64,
    "dataset": pl.String,
}


@dataclass(frozen=True)
class PrefixSequences:
    """token_ids [prefix length - 1, sequence, position]; destination, source [sequence]."""

    token_ids: Tensor
    destination: Tensor
    source: Tensor
    name: str


def prefix_sequences(
    model: LanguageModel,
    settings: PrefixInductionSettings,
    *,
    length: int = SEQUENCE_LENGTH,
    longest: int = LONGEST_PREFIX,
) -> PrefixSequences:
    """Sequences of every prefix length 1 .. longest, in the layout of the module's docstring.

    (d, s) is drawn uniformly from all places where the longest block fits behind s and in front of
    s: s >= longest + 2, d >= s + longest + 1. length: tokens of each, BOS included.
    Raises DatasetError where they do not fit.
    """
    if longest < 1:
        raise DatasetError(f"longest is {longest}; prefixes have at least 1 token")
    if length > model.config.n_ctx:
        raise DatasetError(
            f"sequences of {length} tokens do not fit the context of {model.source} "
            f"({model.config.n_ctx}); lower length"
        )
    if length < (least := 2 * longest + 4):
        raise DatasetError(
            f"length is {length}; two copies of {longest} tokens need at least {least}: raise "
            "length or lower longest"
        )
    n = settings.sequences
    base = random_tokens(model, n_sequences=n, length=length, seed=settings.seed).token_ids
    places = torch.tensor(
        [(d, s) for d in range(2 * longest + 3, length) for s in range(longest + 2, d - longest)]
    )
    # A stream of its own: the tokens were drawn from torch's generator with the same seed.
    drawn = np.random.default_rng([settings.seed, 1]).integers(len(places), size=n)
    destination, source = places[torch.from_numpy(drawn)].unbind(dim=1)
    token_ids = base.repeat(longest, 1, 1)
    back = torch.arange(longest)
    copied = base.gather(1, source[:, None] - 1 - back)
    for p in range(1, longest + 1):
        token_ids[p - 1].scatter_(1, destination[:, None] - back[:p], copied[:, :p])
    name = f"random tokens with a copied block ({n} x {length} per length, seed {settings.seed})"
    name = f"{name} {model.sequence_start}"
    return PrefixSequences(token_ids, destination, source, name)


def prefix_induction(
    model: LanguageModel,
    settings: PrefixInductionSettings | None = None,
    *,
    length: int = SEQUENCE_LENGTH,
    batch_size: int = 64,
    n_bootstrap: int = 1000,
) -> pl.DataFrame:
    """Induction score and direct logit attribution by prefix length: the frame prefix_induction.

    One row per head and prefix length. Processed weights, whose attention patterns are those of the
    raw ones. One forward pass per batch for all heads.

    attention: A[d, s]. Its null: s replaced by another source drawn uniformly from 1 .. d,
    independently for every sequence; exact (see targeted_attention.py). gain: attention minus that
    at prefix length 1, sequence by sequence.
    dla: the head's output at d, z_d W_O over the final norm's scale, times the W_U column of the
    token at s. Its null: that token replaced by another token of the sequence up to d, drawn
    uniformly from the distinct ones; exact. dla_excess is dla minus the null mean.
    Intervals: 95% percentile bootstrap over sequences, n_bootstrap resamples. length: tokens of a
    sequence, BOS included, fewer where the model's context or vocabulary is smaller; the longest
    prefixes are left out where two copies do not fit. batch_size: sequences in a forward pass.
    """
    settings = settings or PrefixInductionSettings()
    length = fitting_length(model, length)
    longest = max(1, min(LONGEST_PREFIX, (length - 4) // 2))
    data = prefix_sequences(model, settings, length=length, longest=longest)
    measured = _measure(model, data, batch_size)
    excess = measured.dla - measured.dla_null_mean
    n = settings.sequences

    def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        over_sequences = np.moveaxis(values, 1, 0)
        return cluster_bootstrap(
            over_sequences,
            np.ones_like(over_sequences),
            n_bootstrap=n_bootstrap,
            seed=settings.seed,
        )

    attention_low, attention_high = interval(measured.attention)
    gain = measured.attention - measured.attention[:1]
    gain_low, gain_high = interval(gain)
    excess_low, excess_high = interval(excess)
    columns = {
        "mean_attention": measured.attention.mean(axis=1),
        "attention_sd": _sd(measured.attention),
        "attention_ci_low": attention_low,
        "attention_ci_high": attention_high,
        "attention_gain": gain.mean(axis=1),
        "attention_gain_ci_low": gain_low,
        "attention_gain_ci_high": gain_high,
        "null_mean": measured.null_mean.mean(axis=1),
        "null_sd": np.sqrt(measured.null_variance.sum(axis=1)) / n,
        "dla": measured.dla.mean(axis=1),
        "dla_null_mean": measured.dla_null_mean.mean(axis=1),
        "dla_null_sd": np.sqrt(measured.dla_null_variance.sum(axis=1)) / n,
        "dla_excess": excess.mean(axis=1),
        "dla_excess_ci_low": excess_low,
        "dla_excess_ci_high": excess_high,
    }
    prefix, layer, head = np.indices(columns["mean_attention"].shape)
    return (
        pl.DataFrame(
            {
                "layer": layer.ravel(),
                "head": head.ravel(),
                "prefix_length": prefix.ravel() + 1,
                "n": np.full(prefix.size, n),
                **{name: values.ravel() for name, values in columns.items()},
                "dataset": [data.name] * prefix.size,
            },
            schema=PREFIX_INDUCTION_SCHEMA,
        )
        .with_columns(pl.col(pl.Float64).fill_nan(None))
        .sort("layer", "head", "prefix_length")
    )


def trimmed_batches(
    token_ids: Tensor, destination: Tensor, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of [sequence, position] ids cut behind their last destination, and their row numbers.

    Attention is causal, so what follows the destination changes nothing; rows are taken in the
    order of their destinations, so that little else is computed.
    """
    order = torch.argsort(destination, stable=True)
    for rows in torch.split(order, size) if len(order) else ():
        yield rows, token_ids[rows, : int(destination[rows].max()) + 1]


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    """Arrays [prefix length - 1, sequence, layer, head] float64."""

    attention: np.ndarray
    null_mean: np.ndarray
    null_variance: np.ndarray
    dla: np.ndarray
    dla_null_mean: np.ndarray
    dla_null_variance: np.ndarray


@torch.no_grad()
def _measure(model: LanguageModel, data: PrefixSequences, batch_size: int) -> _Measured:
    config, weights, device = model.config, model.weights, model.device
    unembeddings = weights.W_U.T
    lengths, n, _ = data.token_ids.shape
    flat_ids = data.token_ids.flatten(0, 1)
    destinations, sources = data.destination.repeat(lengths), data.source.repeat(lengths)
    prefix = torch.arange(1, lengths + 1).repeat_interleave(n)
    sizes = (config.n_layers, config.n_heads)
    measured = torch.zeros(6, lengths * n, *sizes, dtype=torch.float64)
    for rows, ids in trimmed_batches(flat_ids, destinations, batch_size):
        ids = ids.to(device)
        d, s, p = (x[rows, None].to(device) for x in (destinations, sources, prefix))
        row = torch.arange(len(rows), device=device)
        place = torch.arange(ids.shape[1], device=device)
        candidates = ((place >= 1) & (place <= d) & (place != s))[:, None]
        # The block at d - p + 1 .. d repeats tokens: each token of the sequence counts once.
        distinct = candidates & (place <= d - p)[:, None]
        columns = unembeddings[ids]
        kept = _at_destination(model, ids, row, d[:, 0])
        for layer in range(config.n_layers):
            z = kept[f"blocks.{layer}.attn.hook_z"].view(len(rows), config.n_heads, -1)
            normalised = z / kept["ln_final.hook_scale"][:, None]
            out = torch.einsum("bhe,hed->bhd", normalised, weights.W_O[layer])
            effect = torch.einsum("bhd,btd->bht", out, columns)
            attention = kept[f"blocks.{layer}.attn.hook_pattern"]
            found = (*_hit_and_null(attention, s, candidates), *_hit_and_null(effect, s, distinct))
            measured[:, rows, layer] = torch.stack(found).cpu()
    return _Measured(*measured.view(6, lengths, n, *sizes).numpy())


def _at_destination(
    model: LanguageModel, ids: Tensor, row: Tensor, destination: Tensor
) -> dict[str, Tensor]:
    """Pattern [batch, head, source], z and the final norm's scale at one position per row."""
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        pattern = hook.name.endswith("hook_pattern")
        kept[hook.name] = value[row, :, destination] if pattern else value[row, destination]

    names = [
        f"blocks.{layer}.attn.hook_{what}"
        for layer in range(model.config.n_layers)
        for what in ("pattern", "z")
    ]
    hooks = [(name, keep) for name in (*names, "ln_final.hook_scale")]
    model.processed.run_with_hooks(ids, fwd_hooks=[*hooks, ("unembed.hook_in", last_position)])
    return kept


def _hit_and_null(
    values: Tensor, target: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Value at the target, and mean and variance over the candidates; all [batch, head].

    values [batch, head, position], target [batch, 1], candidates [batch, 1, position].
    """
    values = float64(values)
    target, keep = target.to(values.device), candidates.to(values.device, torch.float64)
    hit = values.gather(2, target[:, :, None].expand(-1, values.shape[1], -1))[..., 0]
    count = keep.sum(dim=2)
    mean = (values * keep).sum(dim=2) / count
    variance = ((values - mean[..., None]).square() * keep).sum(dim=2) / count
    return hit, mean, variance


def _sd(values: np.ndarray) -> np.ndarray:
    """Standard deviation over sequences, NaN for a single one."""
    if values.shape[1] < 2:
        return np.full(values.mean(axis=1).shape, np.nan)
    return np.asarray(values.std(axis=1, ddof=1))
