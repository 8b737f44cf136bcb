"""The section `activations` of a study: the activation cache.

Belongs here: its keys and the checks that concern it alone. Does not belong here: harvesting
(harvest.py), the cache's files (cache.py).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mechinterp_assets.settings.section import Index, Positive, Section, Text, repeated


class ActivationSettings(Section):
    """The activation cache: which layers, how many tokens, how they are stored."""

    layers: Literal["all"] | list[Index] = "all"
    """Layers with a cache and an SAE."""
    max_tokens: Positive = 2_000_000
    """Tokens whose activations are stored."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """They are stored in this."""
    batch_size: Positive = 64
    """Sequences of a forward pass."""
    sequences_per_shard: Positive = 4096
    """Sequences of a file."""
    exclude_tokens: list[Text] = []
    """Tokens that take no part in SAE training, statistics and evaluation, beside BOS: by their
    label in the table vocabulary, with its space, such as <|im_start|>."""
    exclude_norm_above: Annotated[float, Field(gt=1)] | None = None
    """Tokens take no part in training and statistics of a layer whose z is longer than this many
    times the layer's median (activations/norm_limits.py); they are rows of activation_outliers."""

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: Any) -> Any:
        if layers != "all" and (not layers or len(set(layers)) != len(layers)):
            raise ValueError("name each layer once, or all")
        return layers

    @field_validator("exclude_tokens")
    @classmethod
    def _named_once(cls, tokens: list[str]) -> list[str]:
        if (i := repeated(tokens)) is not None:
            raise ValueError(f"{tokens[i]!r} is there twice; name each token once")
        return tokens
