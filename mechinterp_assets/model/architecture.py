"""What TransformerLens's adapter says of an architecture.

Belongs here: the adapter of a config, and what is read off it: sizes, the module that z enters,
which attention kernel computes what the bridge computes. Does not belong here: what is measured on
a loaded model (identities.py), sizes from a config file alone (shape.py).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf
from transformers import __version__ as transformers_version
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from mechinterp_assets.model.shape import ModelError, ModelShape, Positional, shape_of

Kernel = Literal["sdpa", "eager"]
_POSITIONS: dict[str, Positional] = {"standard": "absolute", "rotary": "rotary"}
_ELSEWHERE = "docs/models.md lists families that work, and what to do for others"


def causal_class(config: Any, source: str) -> Any:
    """transformers' class of causal language models with this config. Raises ModelError."""
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if isinstance(found, tuple | list):
        found = found[0]
    if found is None:
        raise ModelError(
            f"{source} is of architecture {config.model_type}, of which transformers "
            f"{transformers_version} has no causal language model; {_ELSEWHERE}"
        )
    return found


def adapter_of(config: Any, source: str) -> ArchitectureAdapter:
    """TransformerLens's adapter of a Hugging Face config.

    Raises ModelError for an architecture without adapter, or without an attention output projection
    in its blocks (recurrent and latent-attention models): z is what enters that projection.
    """
    name = causal_class(config, source).__name__
    try:
        cfg = build_bridge_config_from_hf(config, name, source, torch.float32)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(cfg)
    except Exception as error:
        what = " ".join(str(error).split())[:200]
        raise ModelError(
            f"TransformerLens has no adapter for {source} ({config.model_type}, {name}: {what}); "
            f"{_ELSEWHERE}"
        ) from error
    _z_path(adapter, config, source)
    return adapter


def shape_in_adapter(adapter: ArchitectureAdapter, config: Any) -> ModelShape:
    """Sizes of a model as the bridge has them. Raises ImpossibleSizeError."""
    cfg = adapter.cfg
    positional = _POSITIONS.get(cfg.positional_embedding_type, "other")
    if positional == "absolute" and "pos_embed" not in adapter.components:
        positional = "other"  # a table that is computed, not learned
    return replace(
        shape_of(config),  # the adapter guesses d_mlp where it does not know a config's name for it
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        n_kv_heads=cfg.n_key_value_heads or cfg.n_heads,
        d_model=cfg.d_model,
        d_head=cfg.d_head,
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
        positional=positional,
        normalization="RMS" if cfg.normalization_type == "RMS" else "LN",
        eps=float(cfg.eps),
    )


def attention_kernel(config: Any, source: str) -> Kernel:
    """The kernel that a model is loaded with: SDPA, or eager where that is what is true.

    Eager where the architecture has no SDPA, and for ALiBi, whose bias transformers' kernels treat
    differently (Falcon's logits differ by .2): harvest and bridge must compute one thing.
    """
    if adapter_of(config, source).cfg.positional_embedding_type == "alibi":
        return "eager"
    return "sdpa" if causal_class(config, source)._supports_sdpa else "eager"


@dataclass(frozen=True)
class LayerModules:
    """A layer's modules in the model itself: the block, what computes attention in it, and what
    maps z_cat to the attention output."""

    block: nn.Module
    attention: nn.Module
    output_projection: nn.Module


def layer_modules(
    hf: nn.Module, adapter: ArchitectureAdapter, source: str
) -> tuple[LayerModules, ...]:
    """The modules of every layer, in order. Raises ModelError for a layer without attention."""
    config: Any = hf.config
    blocks, attention, projection = _z_path(adapter, config, source)
    found = []
    for layer in range(adapter.cfg.n_layers):
        block = hf.get_submodule(f"{blocks}.{layer}")
        try:
            own = block.get_submodule(attention)
            found.append(LayerModules(block, own, own.get_submodule(projection)))
        except AttributeError:
            raise ModelError(
                f"layer {layer} of {source} ({config.model_type}) has no {attention}.{projection}: "
                f"layers without attention have no z; {_ELSEWHERE}"
            ) from None
    return tuple(found)


# ---- private -------------------------------------------------------------------------------------


def _z_path(adapter: ArchitectureAdapter, config: Any, source: str) -> tuple[str, str, str]:
    """Names of the list of blocks, of attention in a block, of the projection that z enters."""
    blocks = adapter.components.get("blocks")
    attention = blocks.submodules.get("attn") if blocks is not None else None
    projection = attention.submodules.get("o") if attention is not None else None
    if blocks is None or attention is None or projection is None:
        raise ModelError(
            f"{source} is of architecture {config.model_type}, whose blocks have no attention with "
            f"an output projection of its heads; {_ELSEWHERE}"
        )
    return blocks.name, attention.name, projection.name
