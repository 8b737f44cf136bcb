"""Sizes of a transformer, read from its config alone.

Belongs here: what can be known of a model without its weights. Does not belong here: the weights
(language_model.py).

A local config.json of a known family is read as JSON, which takes no time; every other config
through transformers, which takes seconds to import. Both give the same sizes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Positional = Literal["absolute", "rotary", "other"]
UNLIMITED_CONTEXT = 2048  # tokens that ALiBi models are trained on; their configs know no limit
DEFAULT_EPSILON = 1e-5  # torch's, of LayerNorms that a config says nothing of
_CONTEXT = ("n_positions", "max_position_embeddings", "max_seq_len")
_EPSILON = ("layer_norm_epsilon", "rms_norm_eps", "layer_norm_eps", "norm_epsilon", "norm_eps")
_ROTARY = ("rope_parameters", "rope_theta", "rotary_dim")
MAXIMUM_CONFIG_BYTES = 1 << 20


class ModelError(ValueError):
    """A model folder or name that cannot be used; the message names it and the remedy."""


class ImpossibleSizeError(ModelError):
    """Sizes that no transformer has; the message does not say whose."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a transformer, in the field's names. Raises ImpossibleSizeError."""

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    positional: Positional
    normalization: Literal["LN", "RMS"]
    eps: float

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if isinstance(size, int) and size < 1:
                raise ImpossibleSizeError(f"{name} is {size}; correct config.json")
        if self.n_heads % self.n_kv_heads:
            raise ImpossibleSizeError(
                f"{self.n_heads} query heads cannot share {self.n_kv_heads} key-value heads evenly;"
                " correct config.json"
            )

    @property
    def d_z(self) -> int:
        """Width of z_cat: n_heads * d_head."""
        return self.n_heads * self.d_head

    def key_value_head(self, head: int) -> int:
        """The key-value head that a query head reads; itself without grouped-query attention."""
        return head // (self.n_heads // self.n_kv_heads)

    def query_group(self, head: int) -> tuple[int, ...]:
        """Query heads that read the same keys and values as `head`, itself among them."""
        return tuple(
            other
            for other in range(self.n_heads)
            if self.key_value_head(other) == self.key_value_head(head)
        )


@dataclass(frozen=True)
class _Family:
    """How the config.json of a family of models names its sizes.

    Keys that a file leaves out have a default in transformers' class of the family, which is not
    repeated here: such a file is read by transformers. mlp: its key may be null, which means four
    times the width. head_dim: None where heads always share the width.
    """

    positional: Positional
    eps: str
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    width: str = "hidden_size"
    context: str = "max_position_embeddings"
    mlp: str = "intermediate_size"
    kv_heads: str | None = "num_key_value_heads"
    head_dim: str | None = None


_LLAMA = _Family("rotary", "rms_norm_eps")
_GEMMA = _Family("rotary", "rms_norm_eps", head_dim="head_dim")
_FAMILIES = {
    "gpt2": _Family(
        "absolute",
        "layer_norm_epsilon",
        layers="n_layer",
        heads="n_head",
        width="n_embd",
        context="n_positions",
        mlp="n_inner",
        kv_heads=None,
    ),
    "gpt_neox": _Family("rotary", "layer_norm_eps", kv_heads=None),
    "llama": _Family("rotary", "rms_norm_eps", head_dim="head_dim"),
    "mistral": _Family("rotary", "rms_norm_eps", head_dim="head_dim"),
    "qwen2": _LLAMA,
    "qwen3": _GEMMA,
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "phi": _Family("rotary", "layer_norm_eps"),
    "phi3": _LLAMA,
}


def read_shape(source: str | Path) -> ModelShape:
    """Sizes of a model from its config alone, without its weights. Raises ModelError."""
    local = Path(source) / "config.json"
    if local.exists() and not local.is_file():  # reading a pipe would wait for ever
        raise ModelError(f"{local} is no file; give a folder made by save_pretrained")
    try:
        shape = _shape_in_json(local) if local.is_file() else None
        return shape_of(_library_config(source)) if shape is None else shape
    except ImpossibleSizeError as error:
        raise ModelError(f"{source}: {error}") from None


def shape_of(config: Any) -> ModelShape:
    """Sizes of the model that a Hugging Face config describes."""
    d_model = _first(config, "n_embd", "hidden_size", "d_model")
    n_heads = _heads(config)
    ratio = getattr(config, "expansion_ratio", None) or 4
    return ModelShape(
        architecture=str(config.model_type),
        n_layers=_first(config, "n_layer", "num_hidden_layers", "num_layers", "n_layers"),
        n_heads=n_heads,
        n_kv_heads=_key_value_heads(config, n_heads),
        d_model=d_model,
        d_head=int(getattr(config, "head_dim", None) or _head_width(d_model, n_heads)),
        d_mlp=_first(
            config,
            *("n_inner", "intermediate_size", "ffn_dim", "ffn_hidden_size"),
            default=ratio * d_model,
        ),
        d_vocab=_first(config, "vocab_size"),
        n_ctx=_first(config, *_CONTEXT, default=UNLIMITED_CONTEXT),
        positional=_positional(config),
        normalization="RMS" if hasattr(config, "rms_norm_eps") else "LN",
        eps=_epsilon(config),
    )


def is_transformer_lens(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is TransformerLens's own (transformer_lens_folder.py)."""
    names = ("d_model", "n_layers", "n_heads", "d_head", "n_ctx", "d_vocab")
    return "model_type" not in config and all(type(config.get(name)) is int for name in names)


# ---- private -------------------------------------------------------------------------------------


def _library_config(source: str | Path) -> Any:
    from transformers import AutoConfig  # takes seconds: only where a model is looked at

    try:
        return AutoConfig.from_pretrained(str(source), trust_remote_code=False)
    except Exception as error:
        what = " ".join(str(error).split())
        raise ModelError(f"no readable config for model {str(source)!r}: {what}") from error


def _shape_in_json(file: Path) -> ModelShape | None:
    """Sizes in a config.json of a known family that says them all, else None."""
    try:
        if file.stat().st_size > MAXIMUM_CONFIG_BYTES:
            return None
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # transformers says what is wrong with it
    if isinstance(config, dict) and is_transformer_lens(config):
        return _transformer_lens_shape(config)
    if not isinstance(config, dict) or config.get("model_type") not in _FAMILIES:
        return None
    family = _FAMILIES[config["model_type"]]
    names = [family.layers, family.heads, family.width, family.context, "vocab_size"]
    names += [name for name in (family.kv_heads, family.head_dim) if name is not None]
    sizes = [config.get(name) for name in names]
    mlp = config.get(family.mlp, False)
    known = all(type(size) is int and size > 0 for size in sizes)
    known = known and isinstance(config.get(family.eps), float)
    if not known or not (mlp is None or (type(mlp) is int and mlp > 0)):
        return None
    d_model, n_heads = config[family.width], config[family.heads]
    return ModelShape(
        architecture=config["model_type"],
        n_layers=config[family.layers],
        n_heads=n_heads,
        n_kv_heads=config[family.kv_heads] if family.kv_heads else n_heads,
        d_model=d_model,
        d_head=config[family.head_dim] if family.head_dim else _head_width(d_model, n_heads),
        d_mlp=mlp or 4 * d_model,
        d_vocab=config["vocab_size"],
        n_ctx=config[family.context],
        positional=family.positional,
        normalization="RMS" if family.eps == "rms_norm_eps" else "LN",
        eps=float(config[family.eps]),
    )


def _transformer_lens_shape(config: Mapping[str, Any]) -> ModelShape:
    width, has_mlp = config["d_model"], not config.get("attn_only", False)
    return ModelShape(
        architecture="gpt2",
        n_layers=config["n_layers"],
        n_heads=config["n_heads"],
        n_kv_heads=config["n_heads"],
        d_model=width,
        d_head=config["d_head"],
        d_mlp=(config.get("d_mlp") or 4 * width) if has_mlp else 1,
        d_vocab=config["d_vocab"],
        n_ctx=config["n_ctx"],
        positional="absolute",
        normalization="LN",
        eps=float(config.get("eps", DEFAULT_EPSILON)),
    )


def _head_width(d_model: int, n_heads: int) -> int:
    """Width of the heads that share d_model evenly."""
    if n_heads < 1 or d_model % n_heads:
        raise ImpossibleSizeError(
            f"{n_heads} heads cannot share d_model {d_model} evenly; correct config.json"
        )
    return d_model // n_heads


def _first(config: Any, *names: str, default: int | None = None) -> int:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    if default is None:
        raise ModelError(f"model config {type(config).__name__} has none of {names}")
    return default


def _epsilon(config: Any) -> float:
    found = [
        float(value) for name in _EPSILON if (value := getattr(config, name, None)) is not None
    ]
    return found[0] if found else DEFAULT_EPSILON


def _heads(config: Any) -> int:
    names = ("n_head", "num_attention_heads", "num_heads", "n_heads")
    if all(getattr(config, name, None) is None for name in names):
        raise ModelError(
            f"architecture {config.model_type} has no attention heads by its config (none of "
            f"{', '.join(names)}): its layers have no z; docs/models.md lists families that work"
        )
    return _first(config, *names)


def _key_value_heads(config: Any, n_heads: int) -> int:
    shared = getattr(config, "multi_query", False)  # one key head, unless the number is given too
    if shared and not getattr(config, "new_decoder_architecture", False):
        return 1
    names = ("num_key_value_heads", *(("num_kv_heads",) if shared else ()))
    return _first(config, *names, default=n_heads)


def _positional(config: Any) -> Positional:
    """By what a config says of positions: a bias, rotation, or else a limit to their number."""
    inner = getattr(config, "attn_config", None)
    if getattr(config, "alibi", False) or getattr(inner, "alibi", False):
        return "other"
    if any(hasattr(config, name) for name in _ROTARY):
        return "rotary"
    return "absolute" if any(getattr(config, name, None) for name in _CONTEXT) else "other"
