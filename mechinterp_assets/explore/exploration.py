"""One prompt, run once, and the questions that can be asked of it.

Belongs here: what a question needs (the run, SAEs, weights), made once and kept, and the frame that
each question is answered with. Does not belong here: the methods (attribution/, circuits/,
interventions/), files, tables and pages.

Raw weights throughout, since SAEs read raw z; the model's probabilities are the same in both views.
Positions count from 0, where BOS stands if prompts begin with it; None means the last one. Sums
that are exact are said to be so at each question; tests hold them.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.attribution.frozen_forward import FrozenForward, FrozenModel
from mechinterp_assets.attribution.logit_effects import logit_effects
from mechinterp_assets.attribution.rdfa_splits import Splits, check_feature, check_widths
from mechinterp_assets.attribution.rdfa_tree import Node, grow
from mechinterp_assets.attribution.residual_saes import ResidualSaes
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.circuits.score_model import ScoreModel
from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.explore.node_frames import follow, node_frame
from mechinterp_assets.explore.pair_slices import PairSlices, ScoredPrompt
from mechinterp_assets.explore.prompt import prompt_ids
from mechinterp_assets.explore.vocabulary import logit_lens, next_tokens, token_frame
from mechinterp_assets.explore.what_if import WhatIf, heads_ablated, what_if
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

MAX_TOKENS = 512
FEATURES_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32(),
        "position": pl.Int32(),
        "feature": pl.Int32(),
        "activation": pl.Float64(),
    }
)
_EFFECTS_SCHEMA = pl.Schema(
    {
        "token_id": pl.Int32(),
        "token": pl.String(),
        "logit_effect": pl.Float64(),
        "rank": pl.Int32(),
    }
)
ERRORS_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32(),
        "position": pl.Int32(),
        "n_active": pl.Int32(),
        "z_norm": pl.Float64(),
        "error_norm": pl.Float64(),
    }
)


class Explorer:
    """A model with SAEs, and what prompts share: weights in the forms that attribution reads.

    Args:
        model: its raw view runs the prompts.
        saes: layer -> SAE on raw z; layers without one are explored by heads alone.
        residual: SAEs on the residual stream, whose features split what is read at their layers.
        max_tokens: of a prompt; attention patterns of all layers are kept in float64.

    Raises:
        RdfaError: an SAE does not fit the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        saes: Mapping[int, SparseAutoencoder],
        *,
        residual: ResidualSaes | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        check_widths(model, saes, residual)
        self.residual = residual or ResidualSaes()
        self.model, self.saes, self.max_tokens = model, dict(sorted(saes.items())), max_tokens
        self.frozen = FrozenModel(model)

    @cached_property
    def strings(self) -> list[str]:
        """Label of every token id."""
        return self.model.token_strings()

    @cached_property
    def scores(self) -> ScoreModel:
        """Weights as slices of attention scores read them."""
        return ScoreModel(self.model)

    def explore(self, text: str | Sequence[int]) -> "Exploration":
        """Run a prompt. Raises ExploreError (see `mechinterp_assets.explore.explore`)."""
        return Exploration(self, self.token_ids(text))

    def token_ids(self, text: str | Sequence[int]) -> Tensor:
        """Token ids [position] int64 that a prompt is run as. Raises ExploreError."""
        return prompt_ids(self.model, text, self.max_tokens)

    def token_id(self, token: int | str) -> int:
        """Id of a token given by id, by label or by its text. Raises ExploreError."""
        if isinstance(token, str):
            known = self._ids_by_label.get(token)
            ids = [known] if known is not None else self.model.encode(token)
            if len(ids) != 1:
                raise ExploreError(
                    f"{token!r} is {len(ids)} tokens of this model; give one token, with its "
                    "leading space if it has one"
                )
            return ids[0]
        if not 0 <= token < self.model.config.d_vocab:
            raise ExploreError(
                f"token id {token} does not exist; the model has 0..{self.model.config.d_vocab - 1}"
            )
        return token

    def logit_effect(self, layer: int, feature: int, *tokens: int | str) -> pl.DataFrame:
        """Direct effect of a feature's decoder row on the logits of chosen tokens: token_id, token,
        logit_effect as in feature_logit_effects (logits per unit of activation, before the final
        norm's scale), rank (tokens with a larger effect).

        Raises RdfaError for a feature that there is not, ExploreError for what is no token.
        """
        check_feature(self.saes, layer, feature)
        ids = [self.token_id(token) for token in tokens]
        weights, row = self.model.weights, self.saes[layer].W_dec[feature : feature + 1]
        with torch.no_grad():
            effects = logit_effects(row, weights.W_O[layer], weights.W_U)[0].double().cpu()
        return pl.DataFrame(
            {
                "token_id": ids,
                "token": [self.strings[i] for i in ids],
                "logit_effect": effects[ids].tolist(),
                "rank": [int((effects > effects[i]).sum()) for i in ids],
            },
            schema=_EFFECTS_SCHEMA,
        )

    @cached_property
    def _ids_by_label(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.strings)}


class Exploration:
    """One prompt of an explorer: token_ids [position] int64, forward its run (float64, CPU)."""

    def __init__(self, explorer: Explorer, token_ids: Tensor) -> None:
        self.explorer, self.token_ids = explorer, token_ids
        self.model, self.saes = explorer.model, explorer.saes
        self.forward: FrozenForward = explorer.frozen.whole_run(token_ids)

    def __len__(self) -> int:
        return len(self.token_ids)

    # ---- tokens ----------------------------------------------------------------------------------

    @cached_property
    def tokens(self) -> pl.DataFrame:
        """One row per position: token_id, token, counted (whether SAEs are trained on it: neither
        BOS nor position 0), log_probability (of this token given those before it, nats) and rank
        (0: the likeliest), NULL at position 0; top_token_id, top_token, top_probability: of the
        token that is likeliest to come next.
        """
        assert self.forward.logits is not None
        frame = token_frame(self.token_ids, self.forward.logits, self.explorer.strings)
        return frame.with_columns(counted=pl.Series(self._counted.tolist()))

    def next_tokens(self, position: int | None = None, k: int = 10) -> pl.DataFrame:
        """The k likeliest tokens behind a position: rank, token_id, token, logit, probability."""
        assert self.forward.logits is not None
        logits = self.forward.logits[self.position(position)]
        return next_tokens(logits, self.explorer.strings, k)

    def logit_lens(self, position: int | None = None, k: int = 5) -> pl.DataFrame:
        """The k likeliest tokens if layers from `layer` on wrote nothing: layer, rank, token_id,
        token, logit, probability; layer n_layers is the model's own answer.

        Source: nostalgebraist 2020: final norm and unembedding of the stream before each layer.
        """
        at, logits = self.position(position), self.forward.logits
        assert logits is not None
        streams = torch.stack([stream[at] for stream in self.forward.residual])
        return logit_lens(self.model, streams, logits[at], self.explorer.strings, k)

    def token_id(self, token: int | str) -> int:
        """Id of a token given by id, by label or by its text. Raises ExploreError."""
        return self.explorer.token_id(token)

    # ---- features --------------------------------------------------------------------------------

    @cached_property
    def features(self) -> pl.DataFrame:
        """Active features at counted positions: layer, position, feature, activation; the strongest
        first at each place.
        """
        return self._encoded[0]

    @cached_property
    def errors(self) -> pl.DataFrame:
        """What SAEs leave at counted positions: layer, position, n_active, z_norm, error_norm (of
        z - SAE(z), Euclidean).
        """
        return self._encoded[1]

    def dfa(self, layer: int, feature: int, position: int | None = None) -> pl.DataFrame:
        """Direct feature attribution of an active feature: kind (source, encoder_bias), head,
        source, token, attention, value. Values sum to its pre-activation, which is its activation.

        Source: K24 section 2. Raises InactiveFeatureError, ExploreError.
        """
        self.check_sae(layer, feature)
        at = self.position(position)
        root = self._by_head.root(layer, feature, at)
        assert root.split is not None
        parts = root.split()
        pattern = self.forward.pattern[layer][:, at].tolist()
        rows = [
            {
                "kind": part.kind,
                "head": part.head,
                "source": part.position,
                "token": None if part.token_id is None else self.explorer.strings[part.token_id],
                "attention": None
                if part.head is None or part.position is None
                else pattern[part.head][part.position],
                "value": part.value,
            }
            for part in parts
        ]
        return pl.DataFrame(rows, schema=_DFA_SCHEMA)

    def difference(
        self, layer: int, position: int, other: "Exploration", other_position: int
    ) -> pl.DataFrame:
        """Features of a layer at a place of this prompt and one of another: feature, activation,
        other, difference (this - other); 0 where a feature is not active.
        """
        here = self._features_at(layer, self.position(position))
        there = other._features_at(layer, other.position(other_position))
        return (
            here.join(
                there.rename({"activation": "other"}), on="feature", how="full", coalesce=True
            )
            .with_columns(pl.col("activation", "other").fill_null(0.0))
            .with_columns(difference=pl.col("activation") - pl.col("other"))
            .sort(pl.col("difference").abs(), "feature", descending=[True, False])
        )

    # ---- attribution -----------------------------------------------------------------------------

    def feature_node(self, layer: int, feature: int, position: int | None = None) -> Node:
        """Root of the recursive attribution of an active feature (K24 App. N).

        Raises RdfaError where the model's blocks are not sums, InactiveFeatureError.
        """
        self.check_sae(layer, feature)
        return self._splits.root(layer, feature, self.position(position))

    def logit_node(
        self, token: int | str, position: int | None = None, versus: int | str | None = None
    ) -> Node:
        """Root of the direct attribution of a logit, less that of `versus` or the mean logit."""
        return self._logit_root(self._splits, token, position, versus)

    def parts(self, node: Node, path: Sequence[str] = ()) -> pl.DataFrame:
        """What the node that `path` leads to from `node` splits into: NODE_SCHEMA. Values sum to
        the node's. `path` has names of parts, as column `name` gives them.
        """
        opened = follow(node, path)
        if opened.split is None:
            raise ExploreError(f"{opened.kind} is not split any further")
        return node_frame(opened.split(), self.explorer.strings)

    def tree(self, node: Node, settings: RdfaSettings | None = None) -> pl.DataFrame:
        """The tree of a root, grown as feature_rdfa is: frame of TREE_SCHEMA."""
        return grow(node, settings or RdfaSettings())

    def logit_attribution(
        self,
        token: int | str,
        position: int | None = None,
        versus: int | str | None = None,
        *,
        by: str = "head",
    ) -> pl.DataFrame:
        """Direct attribution of a logit to all that wrote the stream: NODE_SCHEMA.

        by: "head", or "feature" where a layer has an SAE (heads elsewhere). Values sum to the logit
        of `token` less that of `versus`, or less the mean over the vocabulary.
        """
        if by not in ("head", "feature"):
            raise ExploreError(f"by is {by!r}; 'head' or 'feature'")
        splits = self._splits if by == "feature" else self._heads_only
        root = self._logit_root(splits, token, position, versus)
        assert root.split is not None
        nodes: list[Node] = []
        for part in root.split():
            opened = part.split if part.kind == "attention" else None
            nodes += [part] if opened is None else opened()
        return node_frame(nodes, self.explorer.strings)

    # ---- attention -------------------------------------------------------------------------------

    def pattern(self, layer: int, head: int) -> pl.DataFrame:
        """Attention of a head: destination, source, attention; rows of a destination sum to 1."""
        self._check_head(layer, head)
        A = self.forward.pattern[layer][head]
        where = torch.tril_indices(*A.shape)
        return pl.DataFrame(
            {
                "destination": where[0].numpy(),
                "source": where[1].numpy(),
                "attention": A[where[0], where[1]].numpy(),
            },
            schema_overrides={"destination": pl.Int32(), "source": pl.Int32()},
        )

    def attended(self, position: int | None = None, k: int = 3) -> pl.DataFrame:
        """What every head attends to most from a position: layer, head, rank, source, attention."""
        at = self.position(position)
        rows = []
        for layer, pattern in enumerate(self.forward.pattern):
            values, sources = pattern[:, at, : at + 1].topk(min(k, at + 1), dim=-1)
            for head, (own, where) in enumerate(
                zip(values.tolist(), sources.tolist(), strict=True)
            ):
                rows += [
                    (layer, head, rank, source, value)
                    for rank, (source, value) in enumerate(zip(where, own, strict=True))
                ]
        return pl.DataFrame(rows, schema=_ATTENDED_SCHEMA, orient="row")

    def slices(
        self, layer: int, head: int, destination: int | None = None, source: int = 0
    ) -> PairSlices:
        """The score of a pair of positions by singular vectors of Omega, and by who wrote them.

        Raises CircuitError where scores have no such form (ALiBi, ...), ExploreError.
        """
        self._check_head(layer, head)
        d, s = self.position(destination), self.position(source)
        if s > d:
            raise ExploreError(
                f"position {d} does not see position {s}, which comes later; give a source up to it"
            )
        return self._scored.pair(layer, head, d, s)

    # ---- what if ---------------------------------------------------------------------------------

    def what_if(
        self,
        edits: Sequence[Any],
        *,
        position: int | None = None,
        other: "Exploration | None" = None,
        matched: Mapping[int, int] | None = None,
        k: int = 10,
    ) -> WhatIf:
        """The next token behind a position when interventions are made together.

        edits: interventions, or mappings as in a study's `interventions` ({"kind": "head_scaling",
        "layer": 3, "head": 1, "alpha": 0}); position_role is "all", "all_but_bos" or "p<position>".
        other: the prompt that activation_patching takes activations from (source_variant "other");
        matched: position here -> position there, the same where it is not named.
        Raises InterventionError for what cannot be run.
        """
        at = self.position(position)
        ids = self.token_ids[: at + 1].tolist()
        theirs = None if other is None else other.token_ids.tolist()
        return what_if(
            self.model, self.saes, ids, edits, self.explorer.strings, theirs, matched or {}, k
        )

    def heads_ablated(self, token: int | str) -> pl.DataFrame:
        """Every head zero-ablated at all positions, one at a time: layer, head, ablation_kl
        (KL(clean || ablated) of the next token behind the last position, nats) and
        ablated_probability (of `token`).
        """
        ids = self.token_ids.tolist()
        return heads_ablated(self.model, ids, self.token_id(token))

    # ---- checks ----------------------------------------------------------------------------------

    def position(self, position: int | None) -> int:
        """A position of the prompt; None is the last. Raises ExploreError."""
        if position is None:
            return len(self) - 1
        if not 0 <= position < len(self):
            raise ExploreError(
                f"position {position} does not exist; the prompt has 0..{len(self) - 1}"
            )
        return position

    def check_sae(self, layer: int, feature: int | None = None) -> None:
        """Raise RdfaError unless `layer` has an SAE, which has `feature`."""
        check_feature(self.saes, layer, feature)

    # ---- private ---------------------------------------------------------------------------------

    @cached_property
    def _counted(self) -> Tensor:
        return valid_positions(self.token_ids[None], self.model.left_out_ids)[0]

    @cached_property
    @torch.no_grad()
    def _encoded(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        places = self._counted.nonzero()[:, 0]
        features, errors = (
            [pl.DataFrame(schema=FEATURES_SCHEMA)],
            [pl.DataFrame(schema=ERRORS_SCHEMA)],
        )
        for layer, sae in self.saes.items():
            z = self.forward.z[layer][places]
            x = z.to(sae.W_enc)
            row, feature, value = (part.cpu() for part in sae.encode_sparse(x))
            features.append(
                pl.DataFrame(
                    {
                        "layer": [layer] * len(row),
                        "position": places[row].numpy(),
                        "feature": feature.numpy(),
                        "activation": value.double().numpy(),
                    },
                    schema_overrides=FEATURES_SCHEMA,
                ).sort("position", "activation", "feature", descending=[False, True, False])
            )
            error = z - sae(x).to(z)
            errors.append(
                pl.DataFrame(
                    {
                        "layer": [layer] * len(places),
                        "position": places.numpy(),
                        "n_active": torch.bincount(row, minlength=len(places)).numpy(),
                        "z_norm": z.norm(dim=-1).numpy(),
                        "error_norm": error.norm(dim=-1).numpy(),
                    },
                    schema_overrides=ERRORS_SCHEMA,
                )
            )
        return pl.concat(features), pl.concat(errors)

    def _logit_root(
        self, splits: Splits, token: int | str, position: int | None, versus: int | str | None
    ) -> Node:
        other = None if versus is None else self.token_id(versus)
        return splits.logit(self.position(position), self.token_id(token), other)

    def _features_at(self, layer: int, position: int) -> pl.DataFrame:
        self.check_sae(layer)
        rows = self.features.filter((pl.col("layer") == layer) & (pl.col("position") == position))
        return rows.select("feature", "activation")

    @cached_property
    def _checked(self) -> FrozenForward:
        """The run, whose parts may be added up. Raises RdfaError."""
        self.explorer.frozen.check(self.forward)
        return self.forward

    @cached_property
    def _splits(self) -> Splits:
        return Splits(
            self.explorer.frozen,
            self._checked,
            self.saes,
            residual=self.explorer.residual,
            by_heads_without_sae=True,
        )

    @cached_property
    def _heads_only(self) -> Splits:
        return Splits(self.explorer.frozen, self._checked, {}, by_heads_without_sae=True)

    @cached_property
    def _by_head(self) -> Splits:
        """For DFA alone, which holds in models whose streams are no sums too."""
        return Splits(self.explorer.frozen, self.forward, self.saes, by_head=True)

    @cached_property
    def _scored(self) -> ScoredPrompt:
        return ScoredPrompt(self.explorer.scores, self.token_ids)

    def _check_head(self, layer: int, head: int) -> None:
        config = self.model.config
        for name, value, size in (
            ("layer", layer, config.n_layers),
            ("head", head, config.n_heads),
        ):
            if not 0 <= value < size:
                raise ExploreError(f"{name} {value} does not exist; the model has 0..{size - 1}")


def same_positions(first: Collection[int], second: Collection[int]) -> dict[int, int]:
    """Positions of token ids that correspond in two prompts, first -> second, by the longest runs
    that both have.
    """
    from difflib import SequenceMatcher

    blocks = SequenceMatcher(None, list(first), list(second), autojunk=False).get_matching_blocks()
    return {b.a + i: b.b + i for b in blocks for i in range(b.size)}


_DFA_SCHEMA = pl.Schema(
    {
        "kind": pl.String(),
        "head": pl.Int32(),
        "source": pl.Int32(),
        "token": pl.String(),
        "attention": pl.Float64(),
        "value": pl.Float64(),
    }
)
_ATTENDED_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32(),
        "head": pl.Int32(),
        "rank": pl.Int32(),
        "source": pl.Int32(),
        "attention": pl.Float64(),
    }
)
