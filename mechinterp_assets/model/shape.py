"""Sizes of a transformer, read from its config alone.

Belongs here: what can be known of a model without its weights. Does not belong here: the weights
(language_model.py).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

_ROTARY = ("rope_parameters", "rope_theta")
_LLAMA = (
    *(("num_hidden_layers",), ("num_attention_heads",), ("num_key_value_heads",), ("hidden_size",)),
    *(("intermediate_size",), ("vocab_size",), ("max_position_embeddings",), ("rms_norm_eps",)),
    _ROTARY,
)
# Families whose config.json is read without transformers where it has one of each of these keys;
# what it leaves out are defaults of the family, which only transformers knows.
READ_DIRECTLY: dict[str, tuple[tuple[str, ...], ...]] = {
    "gpt2": (
        *(("n_layer",), ("n_head",), ("n_embd",), ("vocab_size",), ("n_positions",)),
        ("layer_norm_epsilon",),
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
}
ABSOLUTE_POSITIONS = frozenset({"gpt2", "gpt_neo", "opt"})


class ModelError(ValueError):
    """A model folder or name that cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a transformer, in the field's names."""

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    positional: Literal["absolute", "rotary", "other"]
    normalization: Literal["LN", "RMS"]
    eps: float

    @property
    def d_z(self) -> int:
        """Width of z_cat: n_heads * d_head."""
        return self.n_heads * self.d_head


def read_shape(source: str | Path) -> ModelShape:
    """Sizes of a model from its config alone, without its weights. Raises ModelError."""
    if (found := _shape_of_file(Path(source) / "config.json")) is not None:
        return found
    from transformers import AutoConfig  # takes seconds, and knows every family's defaults

    try:
        config = AutoConfig.from_pretrained(str(source))
    except Exception as error:
        raise ModelError(f"no readable config for model {str(source)!r}: {error}") from error
    return shape_of(config)


def shape_of(config: Any) -> ModelShape:
    """Sizes of the model that a Hugging Face config describes."""
    d_model = _first(config, "n_embd", "hidden_size", "d_model")
    n_heads = _first(config, "n_head", "num_attention_heads", "num_heads")
    rotary = hasattr(config, "rope_parameters") or hasattr(config, "rope_theta")
    absolute = config.model_type in ABSOLUTE_POSITIONS
    return ModelShape(
        architecture=str(config.model_type),
        n_layers=_first(config, "n_layer", "num_hidden_layers", "num_layers"),
        n_heads=n_heads,
        n_kv_heads=_first(config, "num_key_value_heads", default=n_heads),
        d_model=d_model,
        d_head=_first(config, "head_dim", default=d_model // n_heads),
        d_mlp=_first(config, "n_inner", "intermediate_size", "ffn_dim", default=4 * d_model),
        d_vocab=_first(config, "vocab_size"),
        n_ctx=_first(config, "n_positions", "max_position_embeddings"),
        positional="absolute" if absolute else ("rotary" if rotary else "other"),
        normalization="RMS" if hasattr(config, "rms_norm_eps") else "LN",
        eps=_epsilon(config),
    )


def _shape_of_file(file: Path) -> ModelShape | None:
    """Sizes of a config.json of a family in READ_DIRECTLY that says all of them; else None."""
    try:
        values = json.loads(file.read_text())
        if values["model_type"] not in READ_DIRECTLY:
            return None
        needed = READ_DIRECTLY[values["model_type"]]
        if not all(any(values.get(name) for name in names) for names in needed):
            return None
        return shape_of(SimpleNamespace(**values))
    except (OSError, ValueError, TypeError, KeyError):
        return None  # what is wrong with it is said by whoever reads it next


def _first(config: Any, *names: str, default: int | None = None) -> int:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    if default is None:
        raise ModelError(f"model config {type(config).__name__} has none of {names}")
    return default


def _epsilon(config: Any) -> float:
    names = ("layer_norm_epsilon", "rms_norm_eps", "layer_norm_eps")
    found = [float(value) for name in names if (value := getattr(config, name, None)) is not None]
    if not found:
        raise ModelError(f"model config {type(config).__name__} has none of {names}")
    return found[0]
