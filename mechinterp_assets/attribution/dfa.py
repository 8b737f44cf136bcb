"""Direct feature attribution: a feature's pre-activation split over heads and source positions.

Belongs here: the exact first-order split through one attention layer (K24 section 2). Splitting
the source residual streams further (recursive attribution) does not belong here.

The pre-activation is affine in z, and z is affine in the values once attention patterns are given:
  f_pre = w . z_cat[D] + c,   c = b_enc - w . b_dec,   z_k[D] = sum_s A_k[D, s] v_k[s]
so  DFA(head k, source s) = A_k[D, s] (v_k[s] . w_k)  sums to f_pre - c without remainder.
Values are raw and contain b_V (rows of A sum to 1, so z contains b_V exactly once).
Encoder weights here; head attribution (head_attribution.py) is by decoder weights.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.frames import list_column
from mechinterp_assets.attribution.head_attribution import split_heads
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

DFA_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32(),
        "rank": pl.Int32(),
        "sequence": pl.Int64(),
        "position": pl.Int32(),
        "pre_activation": pl.Float64(),
        "constant": pl.Float64(),
        "dfa_by_head": pl.List(pl.Float32),
        "dfa_by_source": pl.List(pl.Float32),
        "identity_error": pl.Float64(),
    }
)


DFA_MATRIX_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32(),
        "rank": pl.Int32(),
        "sequence": pl.Int64(),
        "position": pl.Int32(),
        "head": pl.Int32(),
        "dfa_by_source": pl.List(pl.Float32),
    }
)


@dataclass(frozen=True)
class LayerAttention:
    """What one layer's attention did on some sequences.

    pattern [batch, head, destination, source]; v [batch, source, head, d_head], repeated over query
    groups; z [batch, destination, head, d_head].
    """

    pattern: Tensor
    v: Tensor
    z: Tensor


@dataclass(frozen=True)
class DfaRequest:
    """Examples of one layer: feature, rank, sequence, position, and the SAE on the layer's z."""

    layer: int
    sae: SparseAutoencoder
    examples: pl.DataFrame


def layer_attention(model: LanguageModel, token_ids: Tensor, layer: int) -> LayerAttention:
    """Pattern, values and z of one layer of the raw model for token_ids [batch, position]."""
    return attention_of_layers(model, token_ids, [layer])[layer]


def attention_of_layers(
    model: LanguageModel, token_ids: Tensor, layers: Collection[int]
) -> dict[int, LayerAttention]:
    """Pattern, values and z of some layers of the raw model, by layer, from one forward pass."""
    names = {
        layer: {part: f"blocks.{layer}.attn.hook_{part}" for part in ("pattern", "v", "z")}
        for layer in layers
    }
    with torch.no_grad():
        _, cache = model.raw.run_with_cache(
            token_ids.to(model.device),
            names_filter=[name for parts in names.values() for name in parts.values()],
            stop_at_layer=max(layers) + 1,
        )
    found = {}
    for layer, parts in names.items():
        v = cache[parts["v"]]
        group = model.config.n_heads // v.shape[2]
        found[layer] = LayerAttention(
            pattern=cache[parts["pattern"]],
            v=v.repeat_interleave(group, dim=2) if group > 1 else v,
            z=cache[parts["z"]],
        )
    return found


def direct_feature_attribution(
    attention: LayerAttention, batch: Tensor, destination: Tensor, w: Tensor
) -> Tensor:
    """DFA(head, source) = A[destination, source] (v[source] . w_head), [example, head, source].

    Args:
        attention: of the sequences.
        batch: [example] int64, which sequence of `attention`.
        destination: [example] int64, position of the example.
        w: [example, head, d_head], the W_enc column of each example's feature.
    """
    reads = torch.einsum("eshd,ehd->ehs", attention.v[batch], w)
    return attention.pattern[batch, :, destination] * reads


def stream_feature_dfa(
    model: LanguageModel,
    requests: Sequence[DfaRequest],
    token_ids: Callable[[NDArray[np.int64]], Tensor],
    *,
    batch_size: int = 32,
    workspace_bytes: int = 256 * 2**20,
    matrix_ranks: int = 0,
    on_matrix: Callable[[int, pl.DataFrame], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Layers with frames `feature_dfa` (without study and layer), some per batch of sequences.

    Examples are grouped by sequence over all layers, so each sequence runs through the model once.

    Args:
        model: its raw bridge runs the sequences.
        requests: layers with their SAEs and examples (of feature_top_examples), each layer once.
        token_ids: gives token ids [n, position] int64 for sequence numbers [n].
        batch_size: sequences per forward pass, fewer where their patterns exceed the workspace.
        workspace_bytes: size of one batch's attention patterns, and of the values gathered for one
            block of examples.
        matrix_ranks: examples of a rank below this have their whole matrix kept.
        on_matrix: receives layer and frames `feature_dfa_matrix` (without study and layer) of those
            examples, one row per head: its attributions to the sources 0 .. destination.
        progress: called after each batch with sequences done and sequences in total.

    Raises:
        ValueError: an SAE does not fit its layer, its pre-activation is not affine with W_enc, or
            an example lies outside its sequence.
    """
    layers = [_Layer(request, model) for request in requests]
    sequences = np.unique(np.concatenate([np.zeros(0, np.int64), *(at.sequences for at in layers)]))
    if len(sequences):
        length = token_ids(sequences[:1]).shape[1]
        patterns = 4 * len(layers) * model.config.n_heads * length**2
        batch_size = max(1, min(batch_size, workspace_bytes // patterns))
    for start in range(0, len(sequences), batch_size):
        part = sequences[start : start + batch_size]
        ids = token_ids(part)
        wanted = [(at, at.rows_in(part)) for at in layers]
        wanted = [(at, rows) for at, rows in wanted if len(rows)]
        for _, rows in wanted:
            _check_positions(rows, ids)
        attention = attention_of_layers(model, ids, [at.layer for at, _ in wanted])
        for at, rows in wanted:
            batch = torch.from_numpy(np.searchsorted(part, rows["sequence"].to_numpy()))
            frame, matrices = _attribute(
                rows,
                batch,
                attention.pop(at.layer),
                at.encoder,
                workspace_bytes,
                matrix_ranks if on_matrix else 0,
            )
            if on_matrix is not None and len(matrices):
                on_matrix(at.layer, matrices)
            yield at.layer, frame
        if progress is not None:
            progress(start + len(part), len(sequences))


def feature_dfa(
    model: LanguageModel,
    sae: SparseAutoencoder,
    layer: int,
    examples: pl.DataFrame,
    token_ids: Callable[[NDArray[np.int64]], Tensor],
    *,
    batch_size: int = 32,
    workspace_bytes: int = 256 * 2**20,
    matrix_ranks: int = 0,
    on_matrix: Callable[[pl.DataFrame], None] | None = None,
) -> pl.DataFrame:
    """One layer's frames of `stream_feature_dfa` as one, ordered by feature and rank."""
    frames = stream_feature_dfa(
        model,
        [DfaRequest(layer, sae, examples)],
        token_ids,
        batch_size=batch_size,
        workspace_bytes=workspace_bytes,
        matrix_ranks=matrix_ranks,
        on_matrix=None if on_matrix is None else lambda _, frame: on_matrix(frame),
    )
    found = [frame for _, frame in frames]
    return pl.concat([pl.DataFrame(schema=DFA_SCHEMA), *found]).sort("feature", "rank")


# ---- private -------------------------------------------------------------------------------------


class _Layer:
    """Examples of one layer in order of their sequences, and the encoder they belong to."""

    def __init__(self, request: DfaRequest, model: LanguageModel) -> None:
        self.layer = request.layer
        self.encoder = _Encoder(request.sae, model)
        columns = ["feature", "rank", "sequence", "position"]
        self._rows = request.examples.select(columns).sort("sequence")
        self._sequence = self._rows["sequence"].to_numpy()
        self.sequences = np.unique(self._sequence)

    def rows_in(self, sequences: NDArray[np.int64]) -> pl.DataFrame:
        """Examples in an ascending run of sequences."""
        low = np.searchsorted(self._sequence, sequences[0])
        high = np.searchsorted(self._sequence, sequences[-1], side="right")
        return self._rows.slice(int(low), int(high - low))


class _Encoder:
    """The affine map from z_cat to pre-activations, by feature."""

    def __init__(self, sae: SparseAutoencoder, model: LanguageModel) -> None:
        shape = model.config
        if sae.d_in != shape.d_z:
            raise ValueError(
                f"the SAE reads {sae.d_in} dimensions, z_cat of {model.source} has {shape.d_z}; "
                "use an SAE trained on attention outputs (z) of this model"
            )
        self.n_heads = shape.n_heads
        self.W_enc = sae.W_enc.detach().to(model.device)
        # The constant is the pre-activation at z = 0, whatever way the SAE uses its biases.
        with torch.no_grad():
            self.constant = sae.pre_activations(torch.zeros_like(sae.W_enc[None, :, 0]))[0]
            probe = torch.linspace(-1, 1, sae.d_in).to(sae.W_enc)
            expected = probe @ sae.W_enc + self.constant
            gap = (sae.pre_activations(probe[None])[0] - expected).abs().max()
        if not gap <= 5e-3 * (1 + expected.abs().max()):  # leaves room for TF32
            raise ValueError(
                f"pre-activations of a {sae.architecture} SAE are not W_enc^T z + constant (off by "
                f"{float(gap):.3g}); direct feature attribution needs an affine pre-activation"
            )
        self.constant = self.constant.to(model.device)

    def columns(self, feature: Tensor) -> Tensor:
        """[example, head, d_head]: W_enc columns, split by head."""
        return split_heads(self.W_enc[:, feature].T, self.n_heads)


def _check_positions(rows: pl.DataFrame, ids: Tensor) -> None:
    outside = rows.filter((pl.col("position") < 0) | (pl.col("position") >= ids.shape[1]))
    if len(outside):
        raise ValueError(
            f"example {outside.row(0, named=True)} lies outside its sequence of {ids.shape[1]} "
            "tokens; pass the token ids of the corpus the examples come from"
        )


def _attribute(
    rows: pl.DataFrame,
    batch: Tensor,
    attention: LayerAttention,
    encoder: _Encoder,
    workspace_bytes: int,
    matrix_ranks: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Frames feature_dfa and feature_dfa_matrix of the examples `rows`."""
    device = attention.v.device
    feature = torch.from_numpy(rows["feature"].to_numpy().astype(np.int64)).to(device)
    position = torch.from_numpy(rows["position"].to_numpy().astype(np.int64)).to(device)
    batch = batch.to(device)
    constant = encoder.constant[feature].double()
    by_head, by_source, pre_activation, total = [], [], [], []
    wanted = torch.from_numpy((rows["rank"] < matrix_ranks).to_numpy())
    matrices: list[Tensor] = []
    size = max(1, workspace_bytes // (4 * attention.v[0].numel()))
    for block in torch.split(torch.arange(len(rows), device=device), size):
        w = encoder.columns(feature[block])
        dfa = direct_feature_attribution(attention, batch[block], position[block], w)
        z = attention.z[batch[block], position[block]]
        matrices.append(dfa[wanted.to(device)[block]].cpu())
        by_head.append(dfa.sum(dim=2).cpu())
        by_source.append(dfa.sum(dim=1).cpu())
        total.append(dfa.sum(dim=(1, 2), dtype=torch.float64) + constant[block])
        pre_activation.append((z.double() * w.double()).sum(dim=(1, 2)) + constant[block])
    exact = torch.cat(pre_activation).cpu()
    heads, sources = torch.cat(by_head), torch.cat(by_source)
    lengths = rows["position"].to_numpy().astype(np.int64) + 1
    up_to_destination = torch.arange(sources.shape[1]) < torch.from_numpy(lengths)[:, None]
    frame = rows.with_columns(
        pl.Series("pre_activation", exact.numpy()),
        pl.Series("constant", constant.cpu().numpy()),
        list_column(
            "dfa_by_head",
            pl.Series(heads.reshape(-1).numpy()),
            np.full(len(rows), heads.shape[1], dtype=np.int64),
        ),
        list_column("dfa_by_source", pl.Series(sources[up_to_destination].numpy()), lengths),
        pl.Series("identity_error", (torch.cat(total).cpu() - exact).abs().numpy()),
    ).cast(DFA_SCHEMA)
    return frame, _matrix_frame(rows.filter(wanted.numpy()), torch.cat(matrices))


def _matrix_frame(rows: pl.DataFrame, matrices: Tensor) -> pl.DataFrame:
    """Frame feature_dfa_matrix of matrices [example, head, source], cut at the destination."""
    n_heads = matrices.shape[1]
    lengths = rows["position"].to_numpy().astype(np.int64) + 1
    inside = torch.arange(matrices.shape[2]) < torch.from_numpy(lengths)[:, None]
    values = matrices[inside[:, None].expand_as(matrices)]
    each = rows.select("feature", "rank", "sequence", "position")[
        np.repeat(np.arange(len(rows)), n_heads)
    ]
    return each.with_columns(
        pl.Series("head", np.tile(np.arange(n_heads, dtype=np.int32), len(rows))),
        list_column("dfa_by_source", pl.Series(values.numpy()), np.repeat(lengths, n_heads)),
    ).cast(DFA_MATRIX_SCHEMA)
