"""Attention scores split into pairs of SAE features: what the query and the key are made of.

Belongs here: exact contributions of (query part, key part) pairs to a head's score from one role to
others, after K24 App. K.3, Fig. 18. Does not belong here: the parts themselves (residual_parts.py),
statistics over prompts (qk_pairs.py), the choice of heads.

With the LayerNorm's scale s of the run held fixed, queries and keys are linear in the residual
stream x = sum_p x_p, so that
  q = sum_p q_p + q_0,  q_p = centre(x_p) / s * gain W_Q,  q_0 = norm_bias W_Q + b_Q   (k alike)
  score = c sum_pr (q_p R_i) . (k_r R_j),  c what the model multiplies q . k by,
with R the rotation of rotary positions at destination i and source j, the identity for absolute
ones. The pairs sum to the score exactly. A contrast of two roles is the difference of their scores:
a pair contributes what it contributes to the first less what it contributes to the second, so that
query parts meet what differs between the keys (K24 reads keys through SAEs on the residual stream:
`residual_saes`; without them the key side has the same parts as the query side).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.attribution.frozen_forward import FrozenModel
from mechinterp_assets.attribution.qk_pairs import PairTables, RolePairs, pair_tables
from mechinterp_assets.attribution.residual_parts import (
    Active,
    MappedParts,
    PartNumbers,
    active_parts,
    joined,
    role_streams,
)
from mechinterp_assets.attribution.settings import QkFeatureSettings
from mechinterp_assets.circuits.omega import omega_gap
from mechinterp_assets.model.identities import identities_of
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.names import head_name
from mechinterp_assets.sae.base import SparseAutoencoder

Head = tuple[int, int]


class QkFeatureError(ValueError):
    """A model, SAE, head or role whose scores cannot be split; the message names the remedy."""


def qk_features(
    model: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    prompts: pl.DataFrame,
    heads: Sequence[Head],
    settings: QkFeatureSettings | None = None,
    *,
    residual_saes: Mapping[int, SparseAutoencoder] | None = None,
) -> PairTables:
    """Tables qk_feature_pairs, qk_feature_kinds and qk_feature_summary, without study and task.

    Args:
        model: its raw view runs the prompts, one at a time.
        saes: SAEs on raw z by layer; a layer without one has its attention output in one piece.
        prompts: rows of ioi_prompts or of TASK_PROMPTS_SCHEMA with the roles of the settings; at
            least 4 base prompts, so that halves of them have a variance.
        heads: (layer, head), distinct.
        settings: roles and how much is kept; prompts and heads are those given here.
        residual_saes: SAEs on hook_resid_pre by layer, which then split the keys of heads of that
            layer; centre_residual: they read the stream less its mean over d_model, as those
            trained on weights whose writing matrices are centred do.

    Raises:
        QkFeatureError: no or unknown heads, SAEs of another width, too few prompts, a model whose
            score is not c q . k of one normalised stream (query-key norms, another position
            scheme).
        PromptError: a prompt lacks a role. RdfaError: see FrozenModel.run.
    """
    settings, residual_saes = settings or QkFeatureSettings(), residual_saes or {}
    check_split(model, saes, residual_saes, prompts, heads)
    splitter = ScoreSplitter(model, saes, residual_saes, prompts, heads, settings)
    return pair_tables(
        [role_pairs for head in heads for role_pairs in splitter.role_pairs(head)],
        splitter.numbers,
        top_pairs=settings.top_pairs,
        top_k=settings.top_k,
        bases=base_numbers(prompts),
    )


# ---- shared with the carried decomposition (qk_carried.py) ---------------------------------------


class ScoreSplitter:
    """Pairs of heads on one set of prompts.

    layers: those whose scores, patterns and scales are kept beside those of `heads`.
    """

    def __init__(
        self,
        model: LanguageModel,
        saes: Mapping[int, SparseAutoencoder],
        residual_saes: Mapping[int, SparseAutoencoder],
        prompts: pl.DataFrame,
        heads: Sequence[Head],
        settings: QkFeatureSettings,
        layers: Collection[int] = (),
    ) -> None:
        self._model, self.frozen, self._settings = model, FrozenModel(model), settings
        layers = sorted({*layers, *(layer for layer, _ in heads)})
        roles = list(dict.fromkeys((settings.destination, *settings.sources)))
        self.streams = role_streams(self.frozen, saes, prompts, roles, layers)
        self._residual = {
            layer: Active.of(sae, self.streams.residual(layer), settings.centre_residual)
            for layer, sae in residual_saes.items()
            if layer in layers
        }
        self.numbers = PartNumbers(
            model.config.n_layers,
            {
                **{("feature", layer): sae.d_sae for layer, sae in saes.items()},
                **{
                    ("residual_feature", layer): residual_saes[layer].d_sae
                    for layer in self._residual
                },
            },
        )

    def role_pairs(self, head: Head) -> list[RolePairs]:
        """Contributions of all pairs to the head's score, for every source role and contrast."""
        query, key = self.side(head, "query"), self.side(head, "key")
        wrong = (
            f"the score of head {head_name(*head)} of {self._model.source} is not its scaled q . k"
        )
        remedy = (
            "; models with query-key norms or position schemes other than absolute and rotary "
            "cannot be split"
        )
        found = {
            role: self.scored_pairs(head, query, key, role, wrong, remedy)
            for role in self._settings.sources
        }
        contrasts = [found[a].minus(found[b]) for a, b in self._settings.compared]
        return [*found.values(), *contrasts]

    def scored_pairs(
        self,
        head: Head,
        query: MappedParts,
        key: MappedParts,
        role: str,
        wrong: str,
        remedy: str = "",
    ) -> RolePairs:
        """Contributions of the pairs of these parts to the head's score at one role.

        Raises QkFeatureError where they do not sum to it: `wrong`, by how much, `remedy`.
        """
        layer, number = head
        streams = self.streams
        at = streams.roles.index(role)
        pairs = self._pairs(layer, query, key, role)
        score = streams.scores[layer][:, number, at]
        gap = (pairs.totals(len(score)) - score).abs()
        if not bool((gap <= self.frozen.tolerance * self._size(layer, query, key, role)).all()):
            raise QkFeatureError(f"{wrong} (off by {float(gap.max()):.3g}){remedy}")
        attention = streams.attends[layer][:, number, at]
        return replace(pairs, layer=layer, head=number, score=score, attention=attention)

    def side(self, head: Head, side: str) -> MappedParts:
        """Parts of queries or keys at all rows, bias included, rotated where positions are."""
        layer, number = head
        weights, norm = self.frozen.query_key(layer), self.frozen.weights(layer)
        is_query = side == "query"
        W = (weights.W_Q if is_query else weights.W_K)[number]
        b = (weights.b_Q if is_query else weights.b_K)[number]
        read = self.read(layer, W)
        streams = self.streams
        if not is_query and layer in self._residual:
            parts = self._residual_parts(layer, read)
        else:
            parts = streams.mapped(layer, read, self.numbers)
        rows = torch.arange(len(streams.position))
        scaled = parts.vector / streams.scale[layer][parts.row, None]
        constant = (norm.norm_bias @ W + b).expand(len(rows), -1)
        bias = MappedParts(rows, torch.full_like(rows, self.numbers.of(f"{side}_bias")), constant)
        return self.turned(layer, joined([replace(parts, vector=scaled), bias]))

    def turned(self, layer: int, parts: MappedParts) -> MappedParts:
        """Queries or keys rotated to the positions of their rows, where positions are rotary."""
        form = identities_of(self._model).attention[layer]
        if not form.rotary:
            return parts
        position = self.streams.position
        matrices = form.rotations(int(position.max()) + 1, self._model.config.d_head).cpu()
        vector = torch.empty_like(parts.vector)
        for place in sorted(set(position.tolist())):
            here = position[parts.row] == place
            vector[here] = parts.vector[here] @ matrices[place]
        return replace(parts, vector=vector)

    def read(self, layer: int, W: Tensor) -> Tensor:
        """The norm's gain and centring, then W: of the stream before `layer`, but for its scale."""
        read = self.frozen.weights(layer).norm_gain[:, None] * W
        return read - read.mean(0) if self.frozen.centres else read

    def _residual_parts(self, layer: int, read: Tensor) -> MappedParts:
        kinds = ("residual_feature", "residual_error", "residual_bias")
        return joined(active_parts(self._residual[layer], read, self.numbers, *kinds, layer))

    def _factor(self, layer: int) -> float:
        """What the layer multiplies q . k by."""
        return identities_of(self._model).attention[layer].scale

    def _pairs(self, layer: int, query: MappedParts, key: MappedParts, role: str) -> RolePairs:
        streams, scale = self.streams, self._factor(layer)
        of_query = by_row(query, streams.rows(self._settings.destination))
        of_key = by_row(key, streams.rows(role))
        prompts, pairs, values = [], [], []
        for prompt, ((q_part, q), (k_part, k)) in enumerate(zip(of_query, of_key, strict=True)):
            value = (scale * (q @ k.T)).flatten()
            pairs.append((q_part[:, None] * self.numbers.count + k_part).flatten())
            values.append(value)
            prompts.append(torch.full_like(pairs[-1], prompt))
        none = torch.empty(0)
        return RolePairs(
            -1, -1, role, torch.cat(prompts), torch.cat(pairs), torch.cat(values), none, none
        )

    def _size(self, layer: int, query: MappedParts, key: MappedParts, role: str) -> Tensor:
        """c |q| |k| of every prompt, which rounding is relative to."""
        streams = self.streams

        def norms(parts: MappedParts, rows: Tensor) -> Tensor:
            return torch.stack([v.sum(0).norm() for _, v in by_row(parts, rows)])

        of_query = norms(query, streams.rows(self._settings.destination))
        return self._factor(layer) * of_query * norms(key, streams.rows(role))


def base_numbers(prompts: pl.DataFrame) -> list[int] | None:
    """Base prompt that each prompt is or was varied from; None where they do not say."""
    return prompts["pair_id"].to_list() if "pair_id" in prompts.columns else None


def n_bases(prompts: pl.DataFrame) -> int:
    """How many base prompts these are or were varied from."""
    return len(set(base_numbers(prompts) or range(prompts.height)))


def by_row(parts: MappedParts, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Parts and vectors of some rows, row by row."""
    order = parts.row.argsort(stable=True)
    sizes = torch.bincount(parts.row, minlength=int(rows.max()) + 1).tolist()
    split = torch.split(order, sizes)
    return [(parts.part[split[row]], parts.vector[split[row]]) for row in rows.tolist()]


def check_split(
    model: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    residual_saes: Mapping[int, SparseAutoencoder],
    prompts: pl.DataFrame,
    heads: Sequence[Head],
) -> None:
    """Raise QkFeatureError for what cannot be split, before anything runs."""
    config = model.config
    if (gap := omega_gap(model)) is not None:
        raise QkFeatureError(f"attention scores cannot be split: {gap}")
    if not heads or len(set(heads)) != len(heads):
        raise QkFeatureError(f"heads {list(heads)}: name at least one, each once")
    for layer, head in heads:
        if not (0 <= layer < config.n_layers and 0 <= head < config.n_heads):
            raise QkFeatureError(
                f"head {head_name(layer, head)} does not exist; {model.source} has layers "
                f"0..{config.n_layers - 1} with heads 0..{config.n_heads - 1}"
            )
    for what, given, width in (
        ("attention-output", saes, config.d_z),
        ("residual-stream", residual_saes, config.d_model),
    ):
        for layer, sae in given.items():
            if sae.d_in != width:
                raise QkFeatureError(
                    f"the {what} SAE of layer {layer} reads {sae.d_in} dimensions, the model has "
                    f"{width}; use SAEs of this model"
                )
    if (n := n_bases(prompts)) < 4:
        raise QkFeatureError(f"{n} base prompts; give at least 4")
