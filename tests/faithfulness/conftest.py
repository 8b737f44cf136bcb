"""Random models in float64 and pairs of prompts for circuit quality."""

from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mechinterp_assets.faithfulness.prompt_pairs import PromptBatch, prompt_pairs
from mechinterp_assets.faithfulness.split_model import SplitModel
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import TASK_PROMPTS_SCHEMA, from_ioi
from mechinterp_assets.prompts.ioi import ioi_prompts


def random_gpt2(folder: Path, seed: int = 0, *, linear: bool = False) -> LanguageModel:
    """Three layers of two heads; `linear`: uniform attention, no MLP, a norm that only scales."""
    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=3,
        n_head=2,
        n_embd=16,
        n_positions=16,
        vocab_size=40,
        bos_token_id=0,
        eos_token_id=0,
        layer_norm_epsilon=1e10 if linear else 1e-5,
    )
    hf = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "ln_" in name and not linear:
                parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            elif "ln_" not in name:
                parameter.normal_(0, 0.4)
        if linear:
            for block in hf.transformer.h:
                block.attn.c_attn.weight[:, :32] = 0
                block.attn.c_attn.bias[:32] = 0
                block.attn.c_attn.weight[:, 32:] *= 1e5
                for parameter in block.mlp.parameters():
                    parameter.zero_()
    hf.save_pretrained(folder)
    return LanguageModel.load(folder, dtype=torch.float64)


def random_pairs(n_vocab: int, lengths: tuple[int, ...], seed: int = 0) -> pl.DataFrame:
    """Task prompts of random tokens, each with a counterfactual that differs from token 2 on."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for pair, length in enumerate(lengths):
        drawn = torch.randint(1, n_vocab, (2, length), generator=generator)
        drawn[:, 0] = 0
        drawn[1, 1] = drawn[0, 1]
        answer, wrong = (torch.randperm(n_vocab - 1, generator=generator)[:2] + 1).tolist()
        for number, (variant, ids) in enumerate(zip(("base", "corrupt"), drawn, strict=True)):
            rows.append(
                {
                    "task": "toy",
                    "prompt": pair + number * len(lengths),
                    "pair_id": pair,
                    "template": length,
                    "variant": variant,
                    "text": "",
                    "token_ids": ids.tolist(),
                    "n_tokens": length,
                    "roles": ["S", "END"],
                    "positions": [2, length - 1],
                    "answer_token_ids": [answer],
                    "wrong_token_ids": [wrong],
                }
            )
    return pl.DataFrame(rows, schema=TASK_PROMPTS_SCHEMA, orient="row")


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return random_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> SplitModel:
    return SplitModel(random_gpt2(tmp_path_factory.mktemp("linear"), linear=True))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """RMSNorm, rotary positions, gated MLPs, two query heads per key head."""
    torch.manual_seed(1)
    config = LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=24,
        vocab_size=40,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=0,
    )
    hf = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2 if "norm" in name else 0.35)
    folder = tmp_path_factory.mktemp("llama")
    hf.save_pretrained(folder)
    return LanguageModel.load(folder, dtype=torch.float64)


@pytest.fixture(scope="session")
def toy_prompts() -> pl.DataFrame:
    return random_pairs(40, (7, 9, 9, 6, 7))


@pytest.fixture(scope="session", params=["gpt2", "llama"])
def split(request: pytest.FixtureRequest) -> SplitModel:
    """Both architectures."""
    return SplitModel(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def pairs(split: SplitModel, toy_prompts: pl.DataFrame) -> PromptBatch:
    return prompt_pairs(split, toy_prompts, counterfactual="corrupt")


@pytest.fixture(scope="session")
def ioi_pairs(organism: LanguageModel) -> pl.DataFrame:
    """IOI prompts of the embedded model in the common form, with ABC and S2_to_IO variants."""
    variants = ("base", "ABC", "S2_to_IO")
    return from_ioi(ioi_prompts(organism.encode, 12, 0, organism.bos_token_id, variants))
