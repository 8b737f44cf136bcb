"""Which analyses are true of a loaded model, and why others are not.

Belongs here: what each analysis rests on (identities.py measures it), and the reason in words where
it does not hold. Does not belong here: the analyses. Assets ask before they work:
`model.capabilities.require("tracing")`.

A reason comes from what the architecture's adapter says it has, not from its name; where the
adapter says nothing, the measured error is the reason.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mechinterp_assets.model.shape import ModelError

if TYPE_CHECKING:
    from mechinterp_assets.model.language_model import LanguageModel

Analysis = Literal[
    "activations",
    "processed_weights",
    "feature_attribution",
    "recursive_attribution",
    "direct_effects",
    "token_weights",
    "query_key",
    "tracing",
    "edges",
]
ANALYSES: tuple[Analysis, ...] = get_args(Analysis)

RESTS_ON: dict[Analysis, tuple[str, ...]] = {
    "activations": ("bridge",),
    "processed_weights": ("bridge", "processed"),
    "feature_attribution": ("bridge", "values"),
    "recursive_attribution": ("bridge", "values", "value_weights", "heads", "stream"),
    "direct_effects": ("bridge", "processed", "heads", "stream", "logits"),
    "token_weights": ("bridge", "processed", "heads", "stream", "logits", "embedding", "blocks"),
    "query_key": ("bridge", "processed", "scores"),
    "tracing": ("bridge", "processed", "scores", "heads", "stream"),
    "edges": (
        *("bridge", "processed", "values", "value_weights", "heads", "stream", "logits"),
        *("scores", "embedding", "blocks"),
    ),
}

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


class Capabilities:
    """The analyses of one loaded model; measured when they are asked for."""

    def __init__(self, model: "LanguageModel") -> None:
        self._model = model

    def of(self, analysis: Analysis) -> Capability:
        """Whether one analysis holds of the model."""
        identities = self._model.identities
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

    def _reason(self, identity: str) -> str:
        because = _feature_behind(self._model, identity)
        if because:
            return f"{_BREACH[identity]}, because {because}"
        why = self._model.identities.why(identity)
        if why:
            return f"{_BREACH[identity]} ({why})"
        error, allowed = self._model.identities.error(identity), self._model.identities.allowed
        return f"{_BREACH[identity]} (relative error {error:.2g}, allowed {allowed:g})"


# ---- private -------------------------------------------------------------------------------------


def _feature_behind(model: "LanguageModel", identity: str) -> str | None:
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
    elif identity == "blocks" and getattr(cfg, "parallel_attn_mlp", False):
        found = "attention and MLP run side by side"
    elif identity == "logits" and getattr(cfg, "output_logits_soft_cap", 0.0) not in (None, 0.0, -1.0):
        found = f"logits are capped at {cfg.output_logits_soft_cap:g} by tanh"
    elif identity == "scores":
        found = _of_scores(model, attention, own)
    elif identity == "embedding" and cfg.positional_embedding_type == "standard":
        found = "positions are added by a table that is no weight" if model.config.positional == "other" else None
    elif identity == "embedding" and "embed_ln" in components:
        found = "a norm stands behind the embedding"
    return found


def _of_scores(model: "LanguageModel", attention: object, own: object) -> str | None:
    cfg = model.adapter.cfg
    assert isinstance(attention, dict)
    normed = [
        part.name for key, part in attention.items() if key in ("q_norm", "k_norm")
        and getattr(own, part.name, None) is not None
    ]
    if cfg.positional_embedding_type == "alibi":
        return "ALiBi adds a bias by distance to them"
    if normed:
        return f"queries and keys are normalised ({', '.join(normed)})"
    if getattr(cfg, "attn_scores_soft_cap", 0.0) not in (None, 0.0, -1.0):
        return f"scores are capped at {cfg.attn_scores_soft_cap:g} by tanh"
    return None
