"""Tiny random models of many families, one folder each, and what is known not to hold of them.

Belongs here: configs and weights. Does not belong here: what is measured (family_identities.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

D_VOCAB, N_CTX, WINDOW = 128, 64, 8
_TOKENS = {"bos_token_id": 1, "eos_token_id": 1}


def _llama(**changes: Any) -> dict[str, Any]:
    """Sizes by Llama's names: 2 layers, 4 heads that share 2 keys."""
    return {
        "vocab_size": D_VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": N_CTX,
        "pad_token_id": 0,
        **_TOKENS,
        **changes,
    }


def _ungrouped(**changes: Any) -> dict[str, Any]:
    return {name: size for name, size in _llama(**changes).items() if "key_value" not in name}


def _gpt2(**changes: Any) -> dict[str, Any]:
    """Sizes by GPT-2's names."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": N_CTX}
    return {"vocab_size": D_VOCAB, **sizes, **_TOKENS, **changes}


def _rope(kind: str, **changes: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **changes}}


_SLIDING = {"sliding_window": WINDOW}
_EXPERTS = {"num_experts_per_tok": 2}
_GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 16}

FAMILIES: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: hf.GPT2Config(**_gpt2()),
    "gpt2, scores scaled by layer": lambda: hf.GPT2Config(
        **_gpt2(scale_attn_by_inverse_layer_idx=True)
    ),
    "gpt_neo": lambda: hf.GPTNeoConfig(
        vocab_size=D_VOCAB,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=64,
        attention_types=[[["global", "local"], 1]],
        window_size=WINDOW,
        max_position_embeddings=N_CTX,
        **_TOKENS,
    ),
    "gptj": lambda: hf.GPTJConfig(**_gpt2(rotary_dim=4)),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**_ungrouped(rotary_pct=0.5)),
    "gpt_neox, blocks in sequence": lambda: hf.GPTNeoXConfig(
        **_ungrouped(rotary_pct=0.25, use_parallel_residual=False)
    ),
    "bloom": lambda: hf.BloomConfig(vocab_size=D_VOCAB, hidden_size=32, n_layer=2, n_head=4),
    "falcon": lambda: hf.FalconConfig(
        **_ungrouped(multi_query=True, parallel_attn=True, bias=False, alibi=False)
    ),
    "falcon, ALiBi": lambda: hf.FalconConfig(
        **_ungrouped(multi_query=False, parallel_attn=False, bias=True, alibi=True)
    ),
    "falcon, grouped keys": lambda: hf.FalconConfig(
        **_ungrouped(num_kv_heads=2, new_decoder_architecture=True, bias=False)
    ),
    "mpt": lambda: hf.MptConfig(
        vocab_size=D_VOCAB, d_model=32, n_layers=2, n_heads=4, max_seq_len=N_CTX, expansion_ratio=2
    ),
    "opt": lambda: hf.OPTConfig(
        **_ungrouped(ffn_dim=64, word_embed_proj_dim=32),
    ),
    "phi": lambda: hf.PhiConfig(**_llama(num_key_value_heads=4)),
    "phi3": lambda: hf.Phi3Config(**_llama()),
    "phi3, longrope": lambda: hf.Phi3Config(
        **_llama(original_max_position_embeddings=16),
        **_rope("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4, factor=4.0),
    ),
    "llama": lambda: hf.LlamaConfig(**_llama()),
    "llama, llama3 RoPE": lambda: hf.LlamaConfig(
        **_llama(),
        **_rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "llama, yarn": lambda: hf.LlamaConfig(
        **_llama(), **_rope("yarn", factor=2.0, original_max_position_embeddings=32)
    ),
    "llama, dynamic RoPE": lambda: hf.LlamaConfig(**_llama(), **_rope("dynamic", factor=2.0)),
    "mistral, sliding window": lambda: hf.MistralConfig(**_llama(head_dim=8), **_SLIDING),
    "mixtral": lambda: hf.MixtralConfig(**_llama(num_local_experts=4), **_EXPERTS),
    "qwen2": lambda: hf.Qwen2Config(**_llama()),
    "qwen2_moe": lambda: hf.Qwen2MoeConfig(
        **_llama(num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=32),
        **_EXPERTS,
    ),
    "qwen3": lambda: hf.Qwen3Config(**_llama(head_dim=8)),
    "olmo": lambda: hf.OlmoConfig(**_llama()),
    "olmo2": lambda: hf.Olmo2Config(**_llama()),
    "olmoe": lambda: hf.OlmoeConfig(**_llama(num_experts=4), **_EXPERTS),
    "gemma": lambda: hf.GemmaConfig(**_llama(head_dim=8)),
    "gemma2": lambda: hf.Gemma2Config(
        **_llama(attn_logit_softcapping=2.0, final_logit_softcapping=3.0), **_GEMMA, **_SLIDING
    ),
    "gemma3": lambda: hf.Gemma3TextConfig(
        **_llama(
            num_hidden_layers=3,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        ),
        **_GEMMA,
        **_SLIDING,
    ),
    "starcoder2": lambda: hf.Starcoder2Config(**_llama(sliding_window=None)),
    "stablelm": lambda: hf.StableLmConfig(**_llama(partial_rotary_factor=0.5)),
    "granite": lambda: hf.GraniteConfig(
        **_llama(
            residual_multiplier=0.3,
            embedding_multiplier=4.0,
            attention_multiplier=0.2,
            logits_scaling=2.0,
        )
    ),
    "smollm3, layers without positions": lambda: hf.SmolLM3Config(
        **_llama(num_hidden_layers=4, no_rope_layer_interval=2)
    ),
    "gpt_bigcode": lambda: hf.GPTBigCodeConfig(**_gpt2()),
    "codegen": lambda: hf.CodeGenConfig(**_gpt2(n_ctx=N_CTX, rotary_dim=4, n_inner=64)),
    "cohere": lambda: hf.CohereConfig(**_llama(logit_scale=0.5)),
    "nemotron": lambda: hf.NemotronConfig(**_llama()),
    "glm": lambda: hf.GlmConfig(**_llama(head_dim=8)),
    "ernie4_5": lambda: hf.Ernie4_5Config(**_llama(head_dim=8)),
    "exaone4": lambda: hf.Exaone4Config(
        **_llama(num_hidden_layers=4, sliding_window_pattern=4), **_SLIDING
    ),
    "openai-gpt": lambda: hf.OpenAIGPTConfig(**_gpt2()),
    "phimoe": lambda: hf.PhimoeConfig(**_llama(num_local_experts=4), **_EXPERTS),
    "mamba": lambda: hf.MambaConfig(vocab_size=D_VOCAB, hidden_size=32, num_hidden_layers=2),
}

# Families that are refused as a whole, and what the refusal says.
NOT_LOADED = {
    "falcon, grouped keys": "TransformerLens's bridge does not compute its logits and z",
    "phimoe": "TransformerLens has no adapter for",
    "mamba": "has no attention heads",
}

_QUERY_KEY = {"query_key", "tracing", "edges"}
_WRITTEN = {"recursive_attribution", "direct_effects", "token_weights", "tracing", "edges"}
_MLP = {"token_weights", "edges"}
_PATHS = {"path_patching"}
REFUSED: dict[str, set[str]] = {
    "bloom": _QUERY_KEY | _MLP,  # ALiBi, a norm behind the embedding
    "falcon, ALiBi": _QUERY_KEY,
    "mpt": _QUERY_KEY,
    "phi3, longrope": _QUERY_KEY,  # angles by length
    "gptj": _MLP | _PATHS,  # attention and MLP side by side
    "gpt_neox": _MLP | _PATHS,
    "falcon": _MLP | _PATHS,
    "phi": _MLP | _PATHS,
    "codegen": _MLP | _PATHS,
    "cohere": _MLP | _PATHS,
    "mixtral": {"edges"},  # experts
    "olmoe": _QUERY_KEY,  # query-key norms
    "qwen3": _QUERY_KEY,
    "qwen2_moe": {"processed_weights", "direct_effects", "token_weights"} | _QUERY_KEY | _PATHS,
    "olmo2": _WRITTEN | _QUERY_KEY | _PATHS,  # norms behind attention and MLP
    "gemma2": _WRITTEN | _QUERY_KEY | _PATHS,
    "gemma3": _WRITTEN | _QUERY_KEY | _PATHS,
    "exaone4": _WRITTEN | _QUERY_KEY | _PATHS,
    "openai-gpt": _WRITTEN | _QUERY_KEY | _PATHS,
    "gemma": _MLP,  # a scaled embedding
    "granite": _WRITTEN | _PATHS,  # multipliers
    "nemotron": _WRITTEN | _QUERY_KEY,  # norms that are not folded
    "glm": _WRITTEN | _QUERY_KEY,
}


def save_family(name: str, folder: Path) -> Path:
    """A model of the family in `folder`: no weight, bias or gain is what it starts training as."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(FAMILIES[name](), attn_implementation="eager")
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            value = torch.randn(parameter.shape, generator=drawn)
            if parameter.dim() > 1:
                parameter.copy_(value / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.3 * value)
    model.save_pretrained(folder)
    return folder
