"""The settings of the activation cache.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mechinterp_assets.settings.section import Positive, Section


class ActivationSection(Section):
    """The activation cache: which layers, how many tokens, how they are stored."""

    layers: Literal["all"] | list[Annotated[int, Field(ge=0)]] = "all"
    max_tokens: Positive = 2_000_000
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    batch_size: Positive = 64
    sequences_per_shard: Positive = 4096

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: Any) -> Any:
        if layers != "all" and (not layers or len(set(layers)) != len(layers)):
            raise ValueError("name each layer once, or all")
        return layers
