"""Which analyses are true of a loaded model, and why others are not.

Belongs here: what each analysis rests on (identities.py measures it), and the reason in words where
it does not hold. Does not belong here: the analyses. Assets ask before they work:
`capabilities_of(model).require("tracing")`.

A reason comes from what the architecture's adapter says it has, not from its name; where the
adapter says nothing, the measured error is the reason.
"""

import math
from dataclasses import dataclass

import polars as pl

from mechinterp_assets.model.analyses import ANALYSES, RESTS_ON, Analysis
from mechinterp_assets.model.identities import identities_of
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError

# What does not hold, in words that go on "... cannot be computed of this model: ".
_BREACH = {
    "bridge": "TransformerLens's bridge does not compute its logits and z",
    "processed": "folding its norms into its weights changes its probabilities",
    "values": "z is not its attention pattern times its values",
    "value_weights": "its values are not W_V on the normalised residual stream",
    "heads": "its heads' outputs z W_O are not what attention adds to the residual stream",
    "stream": "its residual stream is not the sum of what its blocks write",
    "logits": "its logits are not W_U on the normalised residual stream",
    "scores": "its attention patterns are not the softmax of q . k as its weights give them",
    "embedding": "its residual stream does not begin as W_E of the token",
    "mlp": "its MLPs are not two or three matrices around one activation function",
    "blocks": "its blocks are not attention, then an MLP that reads the stream with it",
}


class UnsupportedAnalysisError(ModelError):
    """An analysis that is not true of a model; says which architecture and why."""


@dataclass(frozen=True)
class Capability:
    """Whether an analysis holds: the worst error of what it rests on, and the reason if not."""

    analysis: Analysis
    error: float
    allowed: float
    reason: str | None

    @property
    def holds(self) -> bool:
        """Whether the analysis is true of the model."""
        return self.reason is None


def capabilities_of(model: LanguageModel) -> "Capabilities":
    """The analyses of a model, measured once."""
    return Capabilities(model)


class Capabilities:
    """The analyses of one loaded model; measured when they are asked for."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def of(self, analysis: Analysis) -> Capability:
        """Whether one analysis holds of the model."""
        identities = identities_of(self._model)
        errors = {identity: identities.error(identity) for identity in RESTS_ON[analysis]}
        reason = next(
            (self._reason(identity) for identity in errors if not identities.holds(identity)), None
        )
        return Capability(analysis, max(errors.values()), identities.allowed, reason)

    def require(self, *analyses: Analysis) -> None:
        """Raise UnsupportedAnalysisError for the first of `analyses` that does not hold."""
        for analysis in analyses:
            found = self.of(analysis)
            if not found.holds:
                raise UnsupportedAnalysisError(
                    f"{analysis.replace('_', ' ')} cannot be computed of {self._model.source} "
                    f"({self._model.config.architecture}): {found.reason}; docs/models.md says "
                    "what each family allows and what to do instead"
                )

    def frame(self) -> pl.DataFrame:
        """Table model_capabilities, without study."""
        found = [self.of(analysis) for analysis in ANALYSES]
        return pl.DataFrame(
            {
                "analysis": [one.analysis for one in found],
                "holds": [one.holds for one in found],
                "error": [one.error if math.isfinite(one.error) else None for one in found],
                "allowed": [one.allowed for one in found],
                "reason": [one.reason for one in found],
            },
            schema={
                "analysis": pl.String,
                "holds": pl.Boolean,
                "error": pl.Float64,
                "allowed": pl.Float64,
                "reason": pl.String,
            },
        )

    def _reason(self, identity: str) -> str:
        because = identities_of(self._model).because(identity)
        because = because or _feature_behind(self._model, identity)
        if because:
            return f"{_BREACH[identity]}, because {because}"
        why = identities_of(self._model).why(identity)
        if why:
            return f"{_BREACH[identity]} ({why})"
        error, allowed = (
            identities_of(self._model).error(identity),
            identities_of(self._model).allowed,
        )
        return f"{_BREACH[identity]} (relative error {error:.2g}, allowed {allowed:g})"


# ---- private -------------------------------------------------------------------------------------


def _feature_behind(model: LanguageModel, identity: str) -> str | None:
    """What the architecture has that breaks an identity, as its adapter and modules say."""
    cfg, components = model.adapter.cfg, model.adapter.components
    block = components["blocks"].submodules
    attention = block["attn"].submodules
    behind_norms = "ln1_post" in block or "ln2_post" in block
    own = model.attention_module(0)
    scaled = getattr(cfg, "residual_multiplier", None)
    found: str | None = None
    if identity in ("heads", "stream", "blocks") and behind_norms:
        found = "a norm stands behind attention and behind the MLP"
    elif identity in ("heads", "blocks") and scaled not in (None, 1.0):
        found = f"what blocks write is multiplied by {scaled:g}"
    elif identity == "value_weights" and "ln1" not in block:
        found = "no norm stands before attention"
    elif identity in ("value_weights", "logits") and not _norms_fold(model):
        found = "TransformerLens cannot fold its norms into its weights"
    elif identity == "blocks" and getattr(cfg, "parallel_attn_mlp", False):
        found = "attention and MLP run side by side"
    elif identity == "logits" and getattr(cfg, "output_logits_soft_cap", 0.0) not in (
        None,
        0.0,
        -1.0,
    ):
        found = f"logits are capped at {cfg.output_logits_soft_cap:g} by tanh"
    elif identity == "scores":
        found = _of_scores(model, attention, own)
    elif identity == "embedding" and cfg.positional_embedding_type == "standard":
        found = (
            "positions are added by a table that is no weight"
            if model.config.positional == "other"
            else None
        )
    elif identity == "embedding" and "embed_ln" in components:
        found = "a norm stands behind the embedding"
    return found


def _of_scores(model: LanguageModel, attention: object, own: object) -> str | None:
    cfg = model.adapter.cfg
    assert isinstance(attention, dict)
    normed = [
        part.name
        for key, part in attention.items()
        if key in ("q_norm", "k_norm") and getattr(own, part.name, None) is not None
    ]
    if cfg.positional_embedding_type == "alibi":
        return "ALiBi adds a bias by distance to them"
    if normed:
        return f"queries and keys are normalised ({', '.join(normed)})"
    if getattr(cfg, "attn_scores_soft_cap", 0.0) not in (None, 0.0, -1.0):
        return f"scores are capped at {cfg.attn_scores_soft_cap:g} by tanh"
    return None if _norms_fold(model) else "TransformerLens cannot fold its norms into its weights"


def _norms_fold(model: LanguageModel) -> bool:
    return getattr(model.adapter, "supports_fold_ln", True) is not False
