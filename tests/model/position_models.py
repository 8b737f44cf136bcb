"""Tiny models of every position scheme whose attention is peaked at 1,024 positions."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

CONTEXT, VOCABULARY, LAYERS, PEAKED = 1024, 97, 2, 12.0

ROPE = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 256,
    },
}
SCHEMES = ("absolute", *ROPE)


def write_model(folder: Path, scheme: str) -> Path:
    """A random model of a position scheme, saved in float32; query and key weights are PEAKED
    times their usual size, and norms have gains and biases of their own."""
    torch.manual_seed(0)
    if scheme == "absolute":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=CONTEXT,
                n_embd=64,
                n_layer=LAYERS,
                n_head=4,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
        queries_and_keys = [block.attn.c_attn.weight[:, :128] for block in model.transformer.h]
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=CONTEXT,
                rope_parameters=ROPE[scheme],
                bos_token_id=0,
                eos_token_id=0,
            )
        )
        queries_and_keys = [
            projection.weight
            for layer in model.model.layers
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
        ]
    with torch.no_grad():
        for weight in queries_and_keys:
            weight.mul_(PEAKED)
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / scheme)
    return folder / scheme


def long_ids(sequences: int = 1) -> Tensor:
    """Random tokens [sequence, CONTEXT]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, VOCABULARY, (sequences, CONTEXT), generator=generator)
