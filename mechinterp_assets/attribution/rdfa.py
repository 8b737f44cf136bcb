"""Recursive direct feature attribution: from a feature at a position down to tokens (K24 App. N).

Belongs here: the four splits, each exact, and trees of whole examples. Does not belong here: the
forward pass (frozen_forward.py), which parts become rows (rdfa_tree.py).

Attention patterns, LayerNorm scales, MLP outputs and the choice of active features are held fixed.
Then, with w the W_enc column of a feature of layer l and D its position,
  feature     f_pre = sum_s sum_k A_k[D, s] (v_k[s] . w_k) + c,   c = b_enc - w . b_dec
  source s    = sum over writers o before layer l of  u . o[s]  + a bias, where
              u = centre(norm_gain * sum_k A_k[D, s] W_V,k w_k) / scale[s], and the bias is what
              norm_bias and b_V give; writers: embedding, position, attention m, MLP m (m < l)
  attention m = z_m[s] W_O u + b_O . u, with the SAE of layer m  z_m = sum_i f_i d_i + b_dec + error
  feature i   = f_i (d_i W_O u): an active feature's activation is its pre-activation in every
              architecture here (ReLU, TopK, JumpReLU and gated, whose pre-activation is the
              magnitude path's): f = gate * pre with a gate of 1, held fixed. So the feature is
              split as the root is, times the gain g = d_i W_O u, and its value is a contribution to
              the root, not to its parent alone.
MLP outputs are not split. A layer without an SAE has its attention output in one piece.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.dfa import LayerAttention, direct_feature_attribution
from mechinterp_assets.attribution.frozen_forward import (
    FrozenForward,
    FrozenModel,
    RdfaError,
    exact,
)
from mechinterp_assets.attribution.head_attribution import split_heads
from mechinterp_assets.attribution.rdfa_tree import TREE_SCHEMA, Node, grow
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

__all__ = ["RDFA_SCHEMA", "InactiveFeatureError", "Rdfa", "RdfaError"]

RDFA_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32(),
        "rank": pl.Int32(),
        "sequence": pl.Int64(),
        "position": pl.Int32(),
        **TREE_SCHEMA,
    }
)


class InactiveFeatureError(RdfaError):
    """A feature that is not active where its tree should start."""


class Rdfa:
    """Trees of features of one model.

    Args:
        model: its raw view runs the sequences.
        saes: SAEs on raw z by layer; a layer that is not there has its attention output unsplit.
        settings: how far trees are grown.

    Raises:
        RdfaError: an SAE does not fit the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        saes: Mapping[int, SparseAutoencoder],
        settings: RdfaSettings | None = None,
    ) -> None:
        for layer, sae in saes.items():
            if sae.d_in != model.config.d_z:
                raise RdfaError(
                    f"the SAE of layer {layer} reads {sae.d_in} dimensions, z_cat of "
                    f"{model.source} has {model.config.d_z}; use SAEs on attention outputs (z) of "
                    "this model"
                )
        self._model, self._saes = FrozenModel(model), saes
        self._settings = settings or RdfaSettings()

    def check(self, layer: int, feature: int) -> None:
        """Raise RdfaError unless `layer` has an SAE and that has `feature`."""
        if layer not in self._saes:
            raise RdfaError(
                f"layer {layer} has no SAE; layers with one: "
                f"{', '.join(map(str, sorted(self._saes)))}"
            )
        if not 0 <= feature < self._saes[layer].d_sae:
            raise RdfaError(
                f"feature {feature} does not exist; the SAE of layer {layer} has features "
                f"0..{self._saes[layer].d_sae - 1}"
            )

    def tree(self, token_ids: Tensor, layer: int, feature: int, position: int) -> pl.DataFrame:
        """Tree of one feature at one position of token_ids [position], frame of TREE_SCHEMA.

        Raises:
            RdfaError: see `check`; `position` lies outside the sequence; the model's blocks are not
                sums (FrozenModel.run); an active feature is not its pre-activation.
            InactiveFeatureError: the feature is not active there.
        """
        self.check(layer, feature)
        if not 0 <= position < len(token_ids):
            raise RdfaError(
                f"position {position} lies outside a sequence of {len(token_ids)} tokens; pass the "
                "sequence that the example comes from"
            )
        # Later tokens cannot matter to a causal model.
        forward = self._model.run(token_ids[: position + 1], layer + 1)
        splits = _Splits(self._model, forward, self._saes, self._settings)
        return grow(splits.root(layer, feature, position), self._settings)

    def trees(
        self,
        layer: int,
        examples: pl.DataFrame,
        token_ids: Callable[[NDArray[np.int64]], Tensor],
        *,
        on_inactive: Callable[[InactiveFeatureError], None] | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Frames of RDFA_SCHEMA, one per example of `layer`, in the order of feature and rank.

        Args:
            layer: layer of the features.
            examples: columns feature, rank, sequence, position (feature_top_examples).
            token_ids: gives token ids [n, position] int64 for sequence numbers [n].
            on_inactive: receives the error of an example whose feature is not active, which then
                has no tree; without it the error is raised.

        Raises:
            RdfaError: see `tree`. Unknown features are refused before the first tree.
        """
        rows = examples.select("feature", "rank", "sequence", "position").sort("feature", "rank")
        for feature in rows["feature"].unique(maintain_order=True):
            self.check(layer, feature)
        for feature, rank, sequence, position in rows.iter_rows():
            ids = token_ids(np.array([sequence], dtype=np.int64))[0]
            try:
                tree = self.tree(ids, layer, feature, position)
            except InactiveFeatureError as error:
                if on_inactive is None:
                    raise
                on_inactive(error)
                continue
            of_example = {
                "feature": feature,
                "rank": rank,
                "sequence": sequence,
                "position": position,
            }
            yield tree.select(
                *(pl.lit(v, RDFA_SCHEMA[name]).alias(name) for name, v in of_example.items()),
                pl.all(),
            )


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Active:
    """Active features of an SAE at one position: ids [n], w, d [n, d_z], f, constant [n];
    float64. error [d_z] = z - sum_i f_i d_i - b_dec."""

    ids: list[int]
    w: Tensor
    d: Tensor
    f: Tensor
    constant: Tensor
    b_dec: Tensor
    error: Tensor


class _Splits:
    """How the nodes of one forward pass are split."""

    def __init__(
        self,
        model: FrozenModel,
        forward: FrozenForward,
        saes: Mapping[int, SparseAutoencoder],
        settings: RdfaSettings,
    ) -> None:
        self._model, self._forward, self._saes, self._settings = model, forward, saes, settings
        self._n_heads = model.model.config.n_heads
        self._found: dict[tuple[int, int], _Active] = {}

    def root(self, layer: int, feature: int, position: int) -> Node:
        """The feature itself, with a gain of 1."""
        active = self._active(layer, position)
        if feature not in active.ids:
            raise InactiveFeatureError(
                f"feature {feature} of layer {layer} is not active at position {position} "
                f"({len(active.ids)} others are); choose a position where it is, such as one of "
                "feature_top_examples"
            )
        return self._feature(layer, position, active, active.ids.index(feature), 1.0, 1)

    def _feature(
        self, layer: int, position: int, active: _Active, i: int, gain: float, depth: int
    ) -> Node:
        """An active feature whose value is gain * f; `depth` counts features from the root."""
        f, w, constant = float(active.f[i]), active.w[i], float(active.constant[i])
        return Node(
            "feature",
            gain * f,
            lambda: self._sources(layer, position, gain * w, gain * constant, depth),
            layer=layer,
            feature=active.ids[i],
            position=position,
            token_id=self._token(position),
            activation=f,
            gain=gain,
        )

    def _sources(
        self, layer: int, position: int, w: Tensor, constant: float, depth: int
    ) -> list[Node]:
        """A pre-activation w . z + constant by source position, or by position and head."""
        forward = self._forward
        attention = LayerAttention(
            forward.pattern[layer][None], forward.v[layer][None], torch.empty(0)
        )
        by_head = split_heads(w[None], self._n_heads)
        here = torch.zeros(1, dtype=torch.int64)
        dfa = direct_feature_attribution(attention, here, here + position, by_head)[0]
        nodes = [Node("encoder_bias", constant, always_shown=True, layer=layer)]
        for source in range(position + 1):
            heads = range(self._n_heads) if self._settings.by_head else (None,)
            for head in heads:
                chosen = slice(None) if head is None else slice(head, head + 1)
                nodes.append(
                    Node(
                        "source",
                        float(dfa[chosen, source].sum()),
                        self._split_source(layer, position, source, by_head[0], chosen, depth),
                        layer=layer,
                        head=head,
                        position=source,
                        token_id=self._token(source),
                        strongest_head=int(dfa[:, source].abs().argmax()) if head is None else head,
                    )
                )
        return nodes

    def _split_source(
        self, layer: int, position: int, source: int, w: Tensor, heads: slice, depth: int
    ) -> Callable[[], list[Node]]:
        return lambda: self._components(layer, position, source, w, heads, depth)

    def _components(
        self, layer: int, position: int, source: int, w: Tensor, heads: slice, depth: int
    ) -> list[Node]:
        """A source's values by what wrote the residual stream there."""
        forward, weights = self._forward, self._model.weights(layer)
        attended = forward.pattern[layer][heads, position, source, None] * w[heads]
        read = torch.einsum("kde,ke->d", weights.W_V[heads], attended)
        bias = float(weights.norm_bias @ read) + float((weights.b_V[heads] * attended).sum())
        u = weights.norm_gain * read / forward.scale[layer][source]
        if self._model.centres:
            u = u - u.mean()
        node = partial(Node, position=source, token_id=self._token(source))
        nodes = [
            node("value_bias", bias, always_shown=True, layer=layer),
            node("embedding", float(forward.embedding[source] @ u)),
        ]
        if forward.position_embedding is not None:
            nodes.append(node("position", float(forward.position_embedding[source] @ u)))
        for m in range(layer):
            split = self._split_attention(m, source, u, depth) if m in self._saes else None
            value = float(forward.attention[m][source] @ u)
            nodes.append(node("attention", value, split, layer=m))
            nodes.append(node("mlp", float(forward.mlp[m][source] @ u), layer=m))
        return nodes

    def _split_attention(
        self, layer: int, position: int, u: Tensor, depth: int
    ) -> Callable[[], list[Node]]:
        return lambda: self._writers(layer, position, u, depth)

    def _writers(self, layer: int, position: int, u: Tensor, depth: int) -> list[Node]:
        """An attention output, read with u, by the features of the layer's SAE."""
        weights, active = self._model.weights(layer), self._active(layer, position)
        through = weights.W_O @ u
        node = partial(
            Node,
            always_shown=True,
            layer=layer,
            position=position,
            token_id=self._token(position),
        )
        nodes = [
            node("sae_error", float(active.error @ through)),
            node("sae_bias", float(active.b_dec @ through)),
            node("output_bias", float(weights.b_O @ u)),
        ]
        for i, gain in enumerate((active.d @ through).tolist()):
            feature = self._feature(layer, position, active, i, gain, depth + 1)
            splits = depth < self._settings.max_depth
            nodes.append(feature if splits else replace(feature, split=None))
        return nodes

    def _token(self, position: int) -> int:
        return int(self._forward.token_ids[position])

    def _active(self, layer: int, position: int) -> _Active:
        if (layer, position) not in self._found:
            self._found[layer, position] = self._encode(layer, position)
        return self._found[layer, position]

    @torch.no_grad()
    def _encode(self, layer: int, position: int) -> _Active:
        """Which features are active is the SAE's own answer; their values are float64."""
        sae, z = self._saes[layer], self._forward.z[layer][position]
        _, ids, values = sae.encode_sparse(z[None].to(sae.W_enc))
        w, d = exact(sae.W_enc[:, ids].T), exact(sae.W_dec[ids])
        b_dec = exact(sae.b_dec)
        constant = exact(sae.b_enc[ids]) - w @ b_dec
        f = w @ z + constant
        gap = (f - exact(values)).abs()
        if not bool((gap <= 5e-3 * (1 + f.abs())).all()):  # leaves room for TF32
            raise RdfaError(
                f"active features of the {sae.architecture} SAE of layer {layer} are not their "
                f"pre-activations W_enc^T (z - b_dec) + b_enc (off by {float(gap.max()):.3g}); "
                "recursive attribution needs an SAE whose activation is its pre-activation"
            )
        return _Active(ids.tolist(), w, d, f, constant, b_dec, z - f @ d - b_dec)
