"""One pass over a layer's activations: statistics, sparse activations and top examples of features.

Belongs here: what needs the activations themselves. Intervals, which need the maxima first, are
counted from the sparse activations afterwards (`intervals.py`).

Memory does not grow with the number of tokens: the sparse activations leave through a callback, all
else is a fixed size per feature.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.activations.cache import Batch
from mechinterp_assets.attribution.frames import list_column, token_texts
from mechinterp_assets.attribution.ranking import GroupedTopK, starts_of_runs
from mechinterp_assets.sae.base import SparseAutoencoder

ACTIVATION_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32,
        "sequence": pl.Int64,
        "position": pl.Int32,
        "activation": pl.Float32,
    }
)


@dataclass(frozen=True)
class FeaturePass:
    """What one pass found, for every feature of one SAE.

    Attributes:
        n_tokens: tokens read (valid positions only).
        n_sequences: sequences read.
        n_active: [d_sae] int64, tokens with activation > 0.
        n_active_sequences: [d_sae] int64, sequences with such a token.
        activation_sum: [d_sae] float64.
        max_activation: [d_sae] float32; 0 where the feature never fired.
        top: running lists, keys = activations [d_sae, k].
        window_before: tokens of a window before the example.
    """

    n_tokens: int
    n_sequences: int
    n_active: Tensor
    n_active_sequences: Tensor
    activation_sum: Tensor
    max_activation: Tensor
    top: GroupedTopK
    window_before: int

    def statistics(self, sae: SparseAutoencoder) -> pl.DataFrame:
        """Frame `feature_statistics` of one layer (without study and layer)."""
        active = self.n_active.numpy()
        fired = active > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            density = active / np.float64(self.n_tokens)
            mean = self.activation_sum.numpy() / active
            log10_density = np.log10(density)
        W_enc, W_dec = sae.W_enc.detach().double().cpu(), sae.W_dec.detach().double().cpu()
        encoder_norm, decoder_norm = W_enc.norm(dim=0), W_dec.norm(dim=1)
        norms = encoder_norm * decoder_norm
        cosine = torch.einsum("df,fd->f", W_enc, W_dec) / norms
        return pl.DataFrame(
            {
                "feature": np.arange(len(active), dtype=np.int32),
                "n_active": active,
                "n_tokens": np.full(len(active), self.n_tokens),
                "n_active_sequences": self.n_active_sequences.numpy(),
                "density": _where(np.full(len(active), self.n_tokens > 0), density),
                "log10_density": _where(fired, log10_density),
                "mean_activation": _where(fired, mean),
                "max_activation": _where(fired, self.max_activation.double().numpy()),
                "encoder_norm": encoder_norm.numpy(),
                "decoder_norm": decoder_norm.numpy(),
                "encoder_decoder_cosine": _where((norms > 0).numpy(), cosine.numpy()),
                "encoder_bias": sae.b_enc.detach().double().cpu().numpy(),
            }
        )

    def top_examples(self, token_strings: list[str]) -> pl.DataFrame:
        """Frame `feature_top_examples` of one layer (without study and layer).

        Ordered by feature and rank; at most one example per sequence.
        """
        filled = self.top.filled
        feature, rank = filled.nonzero(as_tuple=True)
        sequence, position, tokens, activations = (p.cpu() for p in self.top.entries(filled))
        inside = tokens >= 0  # -1 fills a window beyond the ends of its sequence
        lengths = inside.sum(dim=1).numpy()
        before = inside[:, : self.window_before].sum(dim=1)
        example_token = tokens[:, self.window_before].numpy()
        return pl.DataFrame(
            {
                "feature": feature.int().cpu().numpy(),
                "rank": rank.int().cpu().numpy(),
                "sequence": sequence.numpy(),
                "position": position.numpy(),
                "activation": self.top.keys[filled].cpu().numpy(),
                "token_id": example_token,
                "token": token_texts(token_strings, example_token),
                "window_start": (position - before).int().numpy(),
                "window_tokens": list_column(
                    "window_tokens", token_texts(token_strings, tokens[inside].numpy()), lengths
                ),
                "window_activations": list_column(
                    "window_activations", pl.Series(activations[inside].numpy()), lengths
                ),
            }
        )


def feature_pass(
    batches: Iterable[Batch],
    sae: SparseAutoencoder,
    *,
    top_k: int = 20,
    window_before: int = 24,
    window_after: int = 8,
    max_tokens: int | None = None,
    on_activations: Callable[[pl.DataFrame], None] | None = None,
    flush_rows: int = 4_000_000,
    workspace_bytes: int = 256 * 2**20,
    progress: Callable[[int], None] | None = None,
) -> FeaturePass:
    """Read a layer's activations once and collect what the feature tables need.

    Only valid positions (not position 0, not BOS) take part, in numerators and denominators.

    Args:
        batches: activations of one layer, whole sequences in ascending order of `sequence`.
        sae: attention-output SAE of that layer; its device does the work.
        top_k: examples kept per feature, at most one per sequence (its strongest token).
        window_before: tokens kept before each example.
        window_after: tokens kept after each example.
        max_tokens: stop after this many valid tokens.
        on_activations: receives frames `feature_activations` (without study and layer) of about
            `flush_rows` rows, each sorted by feature, sequence, position; None drops them.
        flush_rows: rows gathered before they are handed over.
        workspace_bytes: size of one block of dense pre-activations [rows, d_sae] float32. A block
            holds whole sequences, at least one.
        progress: called after each block with the tokens read so far.

    Raises:
        ValueError: a setting is out of range, a batch does not fit the SAE, sequences do not
            ascend, or an activation is not finite.
    """
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; give at least 1, or None for all tokens")
    if window_before < 0 or window_after < 0:
        raise ValueError(f"window ({window_before}, {window_after}) is negative; give 0 or more")
    state = _PassState(sae, top_k, window_before, window_after)
    output = _ActivationOutput(on_activations, flush_rows)
    with torch.no_grad():
        for block in _blocks(batches, sae, workspace_bytes):
            found = state.add(block, max_tokens)
            output.add(found)
            if progress is not None:
                progress(state.n_tokens)
            if state.n_tokens == max_tokens:
                break
    output.flush()
    return state.result()


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Activations:
    """Nonzero activations of one block, sorted by feature, sequence and position; all [n]."""

    feature: Tensor
    sequence: Tensor
    position: Tensor
    activation: Tensor


class _PassState:
    """Per-feature accumulators."""

    def __init__(
        self, sae: SparseAutoencoder, top_k: int, window_before: int, window_after: int
    ) -> None:
        self.sae = sae
        device = sae.W_enc.device
        # float64 sums and int64 sorts exist on the CPU and on CUDA, not everywhere else.
        self.device = device if device.type == "cuda" else torch.device("cpu")
        self.window = torch.arange(-window_before, window_after + 1, device=self.device)
        self.window_before = window_before
        self.window_width = len(self.window)
        self.n_tokens = 0
        self.n_sequences = 0
        self.last_sequence = -1
        self.n_active = torch.zeros(sae.d_sae, dtype=torch.int64, device=self.device)
        self.n_active_sequences = torch.zeros_like(self.n_active)
        self.activation_sum = torch.zeros(sae.d_sae, dtype=torch.float64, device=self.device)
        self.top = GroupedTopK(
            sae.d_sae,
            top_k,
            key_dtype=torch.float32,
            payload=[
                (torch.int64, ()),
                (torch.int32, ()),
                (torch.int32, (self.window_width,)),
                (torch.float32, (self.window_width,)),
            ],
            device=self.device,
        )

    def add(self, block: Batch, max_tokens: int | None) -> _Activations:
        self._check_order(block.sequence)
        valid = block.valid
        local, position = valid.nonzero(as_tuple=True)
        n_sequences = len(block.sequence)
        if max_tokens is not None and len(local) > max_tokens - self.n_tokens:
            left = max_tokens - self.n_tokens
            local, position = local[:left], position[:left]
            n_sequences = int(local[-1]) + 1
        x = block.z[local, position].to(self.sae.W_enc.device, self.sae.W_enc.dtype)
        rows, feature, activation = (t.to(self.device) for t in self.sae.encode_sparse(x))
        activation = activation.float()
        if not bool(torch.isfinite(activation).all()):
            raise ValueError(
                f"activations of sequences {int(block.sequence[0])}..{int(block.sequence[-1])} are "
                "not finite; check the activation cache and the SAE's weights for NaN and overflow"
            )
        local, position = local.to(self.device), position.to(self.device)
        self.n_tokens += len(local)
        self.n_sequences += n_sequences
        # Grouped by feature, within one by sequence and position: a radix sort, and from here on
        # what belongs together is contiguous.
        feature, order = torch.sort(feature.int(), stable=True)
        rows, activation = rows[order], activation[order]
        local, position, feature = local[rows], position[rows], feature.long()

        counts = torch.bincount(feature, minlength=self.sae.d_sae)
        self.n_active += counts
        self.activation_sum += torch.segment_reduce(
            activation.double(), "sum", lengths=counts, unsafe=True, initial=0.0
        )
        self.n_active_sequences += torch.bincount(
            feature[starts_of_runs(feature * len(block.sequence) + local)],
            minlength=self.sae.d_sae,
        )
        self._rank(block, local, position, feature, activation)
        return _Activations(feature, block.sequence.to(self.device)[local], position, activation)

    def _check_order(self, sequence: Tensor) -> None:
        ascending = bool((sequence[1:] > sequence[:-1]).all())
        if not ascending or int(sequence[0]) <= self.last_sequence:
            raise ValueError(
                f"sequences do not ascend: {sequence.tolist()[:8]} after {self.last_sequence}; "
                "read whole sequences once each, in order"
            )
        self.last_sequence = int(sequence[-1])

    def _rank(
        self, block: Batch, local: Tensor, position: Tensor, feature: Tensor, activation: Tensor
    ) -> None:
        length = block.token_ids.shape[1]
        index = self.top.can_enter(feature, activation).nonzero().squeeze(1)
        if index.numel() == 0:
            return
        # One candidate per feature and sequence: the strongest, of equals the earliest.
        run = (starts_of_runs(feature[index] * len(block.sequence) + local[index])).cumsum(0) - 1
        strength = activation[index]
        strongest = strength.new_zeros(int(run[-1]) + 1).scatter_reduce(0, run, strength, "amax")
        at_peak = strength == strongest[run]
        index, run = index[at_peak], run[at_peak]
        index = index[starts_of_runs(run)]

        # Cells of one feature and sequence are as far apart as their positions, and those of others
        # further than a window, so that a difference of cells tells what lies in a window.
        n_cells = length + self.window_width
        cell = (feature * len(block.sequence) + local) * n_cells + position
        token_ids = block.token_ids.to(self.device)
        sequence = block.sequence.to(self.device)

        def payload(chosen: Tensor) -> list[Tensor]:
            i = index[chosen]
            where = position[i, None] + self.window
            inside = (where >= 0) & (where < length)
            tokens = torch.where(inside, token_ids[local[i, None], where.clamp(0, length - 1)], -1)
            # Entries in the window are among as many neighbours before and after as it has places.
            slot = (i[:, None] + self.window).clamp(0, len(cell) - 1)
            place = cell[slot] - cell[i, None] + self.window_before
            place = torch.where(
                (place >= 0) & (place < self.window_width), place, self.window_width
            )
            around = activation.new_zeros(len(i), self.window_width + 1)
            around.scatter_(1, place, activation[slot])
            return [sequence[local[i]], position[i].int(), tokens.int(), around[:, :-1]]

        self.top.update(feature[index], activation[index], payload)

    def result(self) -> FeaturePass:
        strongest = self.top.keys[:, 0]
        return FeaturePass(
            n_tokens=self.n_tokens,
            n_sequences=self.n_sequences,
            n_active=self.n_active.cpu(),
            n_active_sequences=self.n_active_sequences.cpu(),
            activation_sum=self.activation_sum.cpu(),
            max_activation=strongest.clamp(min=0.0).cpu(),
            top=self.top,
            window_before=self.window_before,
        )


class _ActivationOutput:
    """Gathers activations and hands them over in frames of about `flush_rows` rows."""

    def __init__(self, receive: Callable[[pl.DataFrame], None] | None, flush_rows: int) -> None:
        self.receive = receive
        self.flush_rows = flush_rows
        self.waiting: list[_Activations] = []
        self.rows = 0

    def add(self, found: _Activations) -> None:
        if self.receive is None:
            return
        self.waiting.append(found)
        self.rows += len(found.feature)
        if self.rows >= self.flush_rows:
            self.flush()

    def flush(self) -> None:
        if self.receive is None or self.rows == 0:
            return
        columns = {
            name: torch.cat([getattr(part, name) for part in self.waiting])
            for name in ACTIVATION_SCHEMA
        }
        self.waiting, self.rows = [], 0
        # Blocks come in the order of their sequences: sorting by feature alone is enough.
        columns["feature"], order = torch.sort(columns["feature"].int(), stable=True)
        for name in ("sequence", "position", "activation"):
            columns[name] = columns[name][order]
        frame = pl.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
        self.receive(frame.cast(ACTIVATION_SCHEMA))


def _blocks(
    batches: Iterable[Batch], sae: SparseAutoencoder, workspace_bytes: int
) -> Iterator[Batch]:
    """Cut batches into blocks of whole sequences whose dense activations fit the workspace."""
    for batch in batches:
        if batch.z.shape[-1] != sae.d_in:
            raise ValueError(
                f"activations are {batch.z.shape[-1]} wide, the SAE reads {sae.d_in}; "
                "use the SAE and the activations of the same layer and model"
            )
        n, length = batch.token_ids.shape
        size = max(1, workspace_bytes // (4 * sae.d_sae * length))
        for start in range(0, n, size):
            part = slice(start, start + size)
            yield Batch(
                sequence=batch.sequence[part],
                token_ids=batch.token_ids[part],
                z=batch.z[part],
                valid=batch.valid[part],
            )


def _where(defined: np.ndarray, values: np.ndarray) -> pl.Series:
    """Values, NULL where undefined."""
    return pl.Series(np.where(defined, values, np.nan)).fill_nan(None)
