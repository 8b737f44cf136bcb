"""Random models of three architectures and random SAEs, all in float64: what identities of
attribution are tested on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.models.llama import modeling_llama

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.batchtopk import BatchTopKSAE
from mechinterp_assets.sae.architectures.gated import GatedSAE
from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.architectures.matryoshka import MatryoshkaSAE
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder

D_SAE = 14


class ExactRMSNorm(modeling_llama.LlamaRMSNorm):
    """RMSNorm in the precision of its input; the library's own rounds to float32."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        squares = hidden_states.pow(2).mean(-1, keepdim=True)
        normalised: Tensor = self.weight * hidden_states * (squares + self.variance_epsilon).rsqrt()
        return normalised


def random_gpt2(folder: Path) -> LanguageModel:
    """LayerNorm and learned positions."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=3,
        n_head=3,
        n_embd=18,
        n_positions=16,
        vocab_size=40,
        bos_token_id=0,
        eos_token_id=0,
    )
    return saved(GPT2LMHeadModel(config), folder)


def random_llama(folder: Path) -> LanguageModel:
    """RMSNorm, rotary positions and grouped queries."""
    torch.manual_seed(1)
    config = LlamaConfig(
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=24,
        vocab_size=40,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_llama, "LlamaRMSNorm", ExactRMSNorm)
        model = saved(LlamaForCausalLM(config), folder)
        assert model.raw is not None  # its copy is made here
    return model


def random_neox(folder: Path) -> LanguageModel:
    """LayerNorm, partly rotary positions, attention and MLP in parallel."""
    torch.manual_seed(2)
    config = GPTNeoXConfig(
        num_hidden_layers=3,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=24,
        vocab_size=40,
        max_position_embeddings=32,
        use_parallel_residual=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return saved(GPTNeoXForCausalLM(config), folder)


def saved(hf: Any, folder: Path) -> LanguageModel:
    """The model in float64 with every parameter, biases and norms among them, at random."""
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            is_norm = "ln_" in name or "norm" in name
            mean = 1.0 if is_norm and name.endswith("weight") else 0.0
            parameter.normal_(mean, 0.3)
    hf.save_pretrained(folder)
    return LanguageModel.load(folder, dtype=torch.float64)


def random_sae(d: int, architecture: str, seed: int = 0) -> SparseAutoencoder:
    """Random weights in float64 for activations of width d, a fair share of features active."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    W_enc, W_dec, b_dec = normal(d, D_SAE), normal(D_SAE, d), 0.2 * normal(d)
    bias, threshold = 0.3 * normal(D_SAE), 0.3 * normal(D_SAE).abs()
    if architecture == "gated":
        return GatedSAE(W_enc, bias, 0.2 * normal(D_SAE), 0.3 * normal(D_SAE), W_dec, b_dec)
    if architecture == "topk":
        return TopKSAE(W_enc, bias, W_dec, b_dec, k=5)
    if architecture == "standard":
        return StandardSAE(W_enc, bias, W_dec, b_dec)
    kinds = {"jumprelu": JumpReLUSAE, "batchtopk": BatchTopKSAE, "matryoshka": MatryoshkaSAE}
    return kinds[architecture](W_enc, bias, W_dec, b_dec, threshold=threshold)


def saes_of(model: LanguageModel, architecture: str = "topk") -> dict[int, SparseAutoencoder]:
    """An SAE on z of every layer."""
    layers = range(model.config.n_layers)
    return {layer: random_sae(model.config.d_z, architecture, seed=layer) for layer in layers}
