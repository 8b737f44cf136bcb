"""Kinds of analysis, and the identities that each rests on.

Belongs here: their names, for assets to declare. Does not belong here: the identities
(identities.py), whether an analysis holds of a model (capabilities.py). Imports no torch.
"""

from typing import Literal, get_args

Analysis = Literal[
    "activations",
    "processed_weights",
    "feature_attribution",
    "recursive_attribution",
    "direct_effects",
    "path_patching",
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
    "path_patching": ("bridge", "processed", "heads", "stream", "blocks"),
    "token_weights": ("bridge", "processed", "heads", "stream", "logits", "embedding", "blocks"),
    "query_key": ("bridge", "processed", "scores"),
    "tracing": ("bridge", "processed", "scores", "heads", "stream"),
    "edges": (
        *("bridge", "processed", "values", "value_weights", "heads", "stream", "logits"),
        *("scores", "embedding", "blocks", "mlp"),
    ),
}
