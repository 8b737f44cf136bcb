"""Small models and prompts for tests of tasks: random ones, one with weights set by hand."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import TASK_PROMPTS_SCHEMA

VOCABULARY = 40
PLANTED_HEAD = (0, 1)


def random_gpt2(folder: Path) -> LanguageModel:
    """Three layers, four heads, biases that are not zero."""
    torch.manual_seed(3)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=16,
            n_embd=32,
            n_layer=3,
            n_head=4,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.2)
    return _loaded(model, folder)


def random_llama(folder: Path) -> LanguageModel:
    """Rotary positions, RMS norm, and two keys and values for four heads."""
    torch.manual_seed(4)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=16,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    return _loaded(model, folder)


def planted_gpt2(folder: Path) -> LanguageModel:
    """Two layers of two heads. Head PLANTED_HEAD copies the token at position 1; the rest is zero.

    d_model 24: twelve tokens, one dimension each, then twelve positions.
    """
    tokens, width = 12, 24
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=tokens,
            n_positions=tokens,
            n_embd=width,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    trunk = model.transformer
    for block in trunk.h:
        for parameter in [*block.attn.parameters(), *block.mlp.parameters()]:
            parameter.data.zero_()
    trunk.wte.weight.data.copy_(torch.eye(tokens, width))
    trunk.wpe.weight.data.copy_(torch.eye(tokens, width).roll(tokens, dims=1))
    attention = trunk.h[0].attn
    layer, head = PLANTED_HEAD
    assert layer == 0
    q, k, v = (slice(part * width + head * 12, part * width + head * 12 + 12) for part in range(3))
    attention.c_attn.bias.data[q.start] = 1.0  # every query asks for position 1
    attention.c_attn.weight.data[tokens + 1, k.start] = 100.0
    attention.c_attn.weight.data[:tokens, v] = torch.eye(tokens)
    attention.c_proj.weight.data[head * 12 : head * 12 + 12, :tokens] = 10.0 * torch.eye(tokens)
    return _loaded(model, folder)


def token_prompts(
    task: str,
    sequences: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    wrong: Sequence[Sequence[int]] | None = None,
    template: int = 0,
) -> pl.DataFrame:
    """Prompts of token ids, with END as their only role."""
    return pl.DataFrame(
        [
            {
                "task": task,
                "prompt": number,
                "pair_id": number,
                "template": template,
                "variant": "base",
                "text": "",
                "token_ids": list(ids),
                "n_tokens": len(ids),
                "roles": ["END"],
                "positions": [len(ids) - 1],
                "answer_token_ids": list(answers[number]),
                "wrong_token_ids": list(wrong[number]) if wrong else [],
            }
            for number, ids in enumerate(sequences)
        ],
        schema=TASK_PROMPTS_SCHEMA,
    )


def _loaded(model: torch.nn.Module, folder: Path) -> LanguageModel:
    model.eval().save_pretrained(folder)
    return LanguageModel.load(folder)
