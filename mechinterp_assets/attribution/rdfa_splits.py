"""How parts of a feature's pre-activation or of a logit are split, each split exact (K24 App. N).

Belongs here: nodes and what they split into, over one forward pass. Does not belong here: which
parts become rows (rdfa_tree.py), whole trees (rdfa.py).

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
  logit t     = W_U[:, t] . norm(x[s]) + b_U[t], less that of another token or the mean over the
              vocabulary: sum over all writers of u . o[s] + a bias, u = centre(gain * W_U) / scale.
With an SAE on the residual stream before layer l (K24 Table 6, steps 3 and 4) a source is split in
between: the stream there is x[s] = sum_i f_i d_i + b_dec + error, so that
  source s    = sum_i f_i (d_i . u) + b_dec . u + error . u + the bias as above
  residual feature i = f_i (d_i . u), split by the writers of x[s] as a source without such an SAE
              is: f_i = w_i . x[s] + c, with u' = (d_i . u) w_i, w_i centred where the SAE is.
MLP outputs and errors of SAEs are not split. A layer without an SAE has its attention output in one
piece, or by head: z_k[s] . (W_O,k u), which is split by source as a pre-activation is. The paper
stops there; heads are this project's.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from mechinterp_assets.attribution.active_features import ActiveFeatures
from mechinterp_assets.attribution.dfa import LayerAttention, direct_feature_attribution
from mechinterp_assets.attribution.frozen_forward import (
    FrozenForward,
    FrozenModel,
    RdfaError,
    exact,
)
from mechinterp_assets.attribution.head_attribution import split_heads
from mechinterp_assets.attribution.rdfa_tree import Node
from mechinterp_assets.attribution.residual_saes import ResidualSaes
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import same_sum
from mechinterp_assets.sae.base import SparseAutoencoder


class InactiveFeatureError(RdfaError):
    """A feature that is not active where its tree should start."""


def check_widths(
    model: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    residual: ResidualSaes | None = None,
) -> None:
    """Raise RdfaError for an SAE that does not read z or the residual stream of `model`."""
    for layer, sae in saes.items():
        if not 0 <= layer < model.config.n_layers or sae.d_in != model.config.d_z:
            raise RdfaError(
                f"the SAE of layer {layer} reads {sae.d_in} dimensions, z_cat of "
                f"{model.source} has {model.config.d_z} in layers 0..{model.config.n_layers - 1}; "
                "use SAEs on attention outputs (z) of this model"
            )
    for layer, sae in (residual or ResidualSaes()).by_layer.items():
        if not 0 <= layer < model.config.n_layers or sae.d_in != model.config.d_model:
            raise RdfaError(
                f"the residual-stream SAE of layer {layer} reads {sae.d_in} dimensions, "
                f"hook_resid_pre of {model.source} has {model.config.d_model} in layers "
                f"0..{model.config.n_layers - 1}; use SAEs on the residual stream of this model"
            )


def check_feature(
    saes: Mapping[int, SparseAutoencoder], layer: int, feature: int | None = None
) -> None:
    """Raise RdfaError unless `layer` has an SAE, which has `feature` (None: any)."""
    if layer not in saes:
        raise RdfaError(
            f"layer {layer} has no SAE; layers with one: "
            f"{', '.join(map(str, sorted(saes))) or 'none'}"
        )
    if feature is not None and not 0 <= feature < saes[layer].d_sae:
        raise RdfaError(
            f"feature {feature} does not exist; the SAE of layer {layer} has features "
            f"0..{saes[layer].d_sae - 1}"
        )


class Splits:
    """How the nodes of one forward pass are split.

    Args:
        model: of the pass.
        forward: a checked run (FrozenModel.run, or whole_run and check) up to the layers of roots.
        saes: SAEs on raw z by layer.
        residual: SAEs on the residual stream, which split sources read at their layers.
        max_depth: features split on one path, the root among them; None: all. Residual features do
            not count: each is a part of one source.
        by_head: split a pre-activation by source and head, not by source alone.
        by_heads_without_sae: split the attention output of a layer without an SAE by head.
    """

    def __init__(
        self,
        model: FrozenModel,
        forward: FrozenForward,
        saes: Mapping[int, SparseAutoencoder],
        *,
        residual: ResidualSaes | None = None,
        max_depth: int | None = None,
        by_head: bool = False,
        by_heads_without_sae: bool = False,
    ) -> None:
        self._model, self._forward, self._saes = model, forward, saes
        self._residual = residual or ResidualSaes()
        self._max_depth, self._by_head = max_depth, by_head
        self._by_heads_without_sae = by_heads_without_sae
        self._n_heads = model.model.config.n_heads
        self._found: dict[tuple[int, int], ActiveFeatures] = {}
        self._found_residual: dict[tuple[int, int], ActiveFeatures] = {}

    # ---- roots -----------------------------------------------------------------------------------

    def root(self, layer: int, feature: int, position: int) -> Node:
        """The feature itself, with a gain of 1. Raises InactiveFeatureError."""
        active = self.active(layer, position)
        if feature not in active.ids:
            raise InactiveFeatureError(
                f"feature {feature} of layer {layer} is not active at position {position} "
                f"({len(active.ids)} others are); choose a position where it is, such as one of "
                "feature_top_examples"
            )
        return self._feature(layer, position, active, active.ids.index(feature), 1.0, 1)

    def logit(self, position: int, token: int, versus: int | None = None) -> Node:
        """The logit of the next token `token`, less that of `versus` or (None) the mean logit.

        Needs a whole run. Raises RdfaError where logits are no linear map of the normed stream.
        """
        model, forward = self._model, self._forward
        assert forward.logits is not None
        W_U, b_U = (
            part.detach() for part in (model.model.raw_weights.W_U, model.model.raw_weights.b_U)
        )
        direction, bias = exact(W_U[:, token]), float(b_U[token])
        logits = forward.logits[position].double()
        if versus is None:
            direction = direction - model.mean_unembedding
            bias -= float(exact(b_U).mean())
            expected = float(logits[token] - logits.mean())
        else:
            direction = direction - exact(W_U[:, versus])
            bias -= float(b_U[versus])
            expected = float(logits[token] - logits[versus])
        gain, norm_bias = model.final_norm
        bias += float(norm_bias @ direction)
        u = self._read_through_norm(gain * direction, self._model.model.config.n_layers, position)
        value = float(forward.residual[-1][position] @ u) + bias
        if not abs(value - expected) <= same_sum(model.model.dtype) * (1 + float(logits.std())):
            raise RdfaError(
                f"logits of {model.model.source} are not W_U on the normed residual stream (off by "
                f"{abs(value - expected):.2g}); logits cannot be attributed directly in a model "
                "that caps or scales them"
            )
        return Node(
            "logit",
            value,
            lambda: [
                Node("unembedding_bias", bias, always_shown=True),
                *self._stream(model.model.config.n_layers, position, u, 0),
            ],
            position=position,
            token_id=token,
        )

    # ---- splits ----------------------------------------------------------------------------------

    def _feature(
        self, layer: int, position: int, active: ActiveFeatures, i: int, gain: float, depth: int
    ) -> Node:
        """An active feature whose value is gain * f; `depth` counts features from the root."""
        f, w, constant = float(active.f[i]), active.w[i], float(active.constant[i])

        def split() -> list[Node]:
            bias = Node("encoder_bias", gain * constant, always_shown=True, layer=layer)
            return [bias, *self._sources(layer, position, gain * w, depth)]

        return Node(
            "feature",
            gain * f,
            split if self._max_depth is None or depth <= self._max_depth else None,
            layer=layer,
            feature=active.ids[i],
            position=position,
            token_id=self._token(position),
            activation=f,
            gain=gain,
        )

    def _sources(
        self, layer: int, position: int, w: Tensor, depth: int, only: int | None = None
    ) -> list[Node]:
        """w . z [d_z] of a layer by source position, or by position and head; only: of a head."""
        forward = self._forward
        attention = LayerAttention(
            forward.pattern[layer][None], forward.v[layer][None], torch.empty(0)
        )
        by_head = split_heads(w[None], self._n_heads)
        here = torch.zeros(1, dtype=torch.int64)
        dfa = direct_feature_attribution(attention, here, here + position, by_head)[0]
        heads: tuple[int | None, ...] = (None,)
        if only is not None:
            heads = (only,)
        elif self._by_head:
            heads = tuple(range(self._n_heads))
        nodes = []
        for source in range(position + 1):
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
        """A source's values by residual features there, or by what wrote the stream."""
        weights = self._model.weights(layer)
        attended = self._forward.pattern[layer][heads, position, source, None] * w[heads]
        read = torch.einsum("kde,ke->d", weights.W_V[heads], attended)
        bias = float(weights.norm_bias @ read) + float((weights.b_V[heads] * attended).sum())
        u = self._read_through_norm(weights.norm_gain * read, layer, source)
        token = self._token(source)
        by_feature = layer in self._residual.by_layer
        split = self._residual_features if by_feature else self._stream
        return [
            Node("value_bias", bias, None, True, layer=layer, position=source, token_id=token),
            *split(layer, source, u, depth),
        ]

    def _residual_features(self, layer: int, position: int, u: Tensor, depth: int) -> list[Node]:
        """u [d_model] on the residual stream before a layer by the features of its residual SAE."""
        active = self._active_residual(layer, position)
        node = partial(Node, layer=layer, position=position, token_id=self._token(position))
        nodes = [
            node("residual_error", float(active.error @ u), always_shown=True),
            node("residual_bias", float(active.b_dec @ u), always_shown=True),
        ]
        for i, gain in enumerate((active.d @ u).tolist()):
            f = float(active.f[i])
            nodes.append(
                node(
                    "residual_feature",
                    gain * f,
                    partial(self._residual_feature, layer, position, active, i, gain, depth),
                    feature=active.ids[i],
                    activation=f,
                    gain=gain,
                )
            )
        return nodes

    def _residual_feature(
        self, layer: int, position: int, active: ActiveFeatures, i: int, gain: float, depth: int
    ) -> list[Node]:
        """gain * f of a residual feature by what wrote the stream that it reads."""
        bias = gain * float(active.constant[i])
        return [
            Node("encoder_bias", bias, always_shown=True, layer=layer),
            *self._stream(layer, position, gain * active.w[i], depth),
        ]

    def _read_through_norm(self, u: Tensor, layer: int, position: int) -> Tensor:
        """u [d_model] on the scaled stream before a layer, as it reads the stream itself."""
        u = u / self._forward.scale[layer][position]
        return u - u.mean() if self._model.centres else u

    def _stream(self, layer: int, position: int, u: Tensor, depth: int) -> list[Node]:
        """u [d_model] on the residual stream before a layer by what wrote it."""
        forward = self._forward
        node = partial(Node, position=position, token_id=self._token(position))
        nodes = [node("embedding", float(forward.embedding[position] @ u))]
        if forward.position_embedding is not None:
            nodes.append(node("position", float(forward.position_embedding[position] @ u)))
        for m in range(layer):
            split: Callable[[], list[Node]] | None = None
            if m in self._saes:
                split = partial(self._writers, m, position, u, depth)
            elif self._by_heads_without_sae:
                split = partial(self._heads, m, position, u, depth)
            value = float(forward.attention[m][position] @ u)
            nodes.append(node("attention", value, split, layer=m))
            nodes.append(node("mlp", float(forward.mlp[m][position] @ u), layer=m))
        return nodes

    def _writers(self, layer: int, position: int, u: Tensor, depth: int) -> list[Node]:
        """An attention output, read with u, by the features of the layer's SAE."""
        weights, active = self._model.weights(layer), self.active(layer, position)
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
            nodes.append(self._feature(layer, position, active, i, gain, depth + 1))
        return nodes

    def _heads(self, layer: int, position: int, u: Tensor, depth: int) -> list[Node]:
        """An attention output, read with u, by head."""
        weights = self._model.weights(layer)
        through = weights.W_O @ u
        z = split_heads((self._forward.z[layer][position] * through)[None], self._n_heads)[0]
        node = partial(Node, layer=layer, position=position, token_id=self._token(position))
        nodes = [node("output_bias", float(weights.b_O @ u), always_shown=True)]
        for head, value in enumerate(z.sum(-1).tolist()):
            split = partial(self._sources, layer, position, through, depth, head)
            nodes.append(node("head", value, split, head=head))
        return nodes

    # ---- what is there ---------------------------------------------------------------------------

    def _token(self, position: int) -> int:
        return int(self._forward.token_ids[position])

    def active(self, layer: int, position: int) -> ActiveFeatures:
        """Active features of a layer at a position. Raises RdfaError (see ActiveFeatures.of)."""
        if (layer, position) not in self._found:
            z = self._forward.z[layer][position]
            self._found[layer, position] = ActiveFeatures.of(self._saes[layer], z, f"layer {layer}")
        return self._found[layer, position]

    def _active_residual(self, layer: int, position: int) -> ActiveFeatures:
        """The same of the residual stream before a layer."""
        if (layer, position) not in self._found_residual:
            sae, x = self._residual.by_layer[layer], self._forward.residual[layer][position]
            place = f"the residual stream before layer {layer}"
            found = ActiveFeatures.of(sae, x, place, centre=self._residual.centre)
            self._found_residual[layer, position] = found
        return self._found_residual[layer, position]
