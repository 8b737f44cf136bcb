"""Models and prompts for circuit tests: the embedded model, tiny random ones, stories260K."""

from collections.abc import Callable

import polars as pl
import pytest
import torch
from traced_cases import Case, firing_roots
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import ioi_prompts


def plain_prompts(model: LanguageModel, n: int, length: int, seed: int = 0) -> pl.DataFrame:
    """Random token ids with END last and IO somewhere before it: enough columns to trace."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, model.config.d_vocab, (n, length), generator=generator)
    io = torch.randint(1, length - 1, (n,), generator=generator)
    return pl.DataFrame(
        {
            "prompt": [100 + i for i in range(n)],
            "token_ids": ids.tolist(),
            "n_tokens": [length] * n,
            "pos_io": io.tolist(),
            "pos_end": [length - 1] * n,
        }
    )


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Random GPT-2 in float64 (LayerNorm, learned positions), sharpened so that pairs fire."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=4,
        n_head=3,
        n_embd=24,
        n_positions=16,
        vocab_size=50,
        bos_token_id=0,
        eos_token_id=0,
    )
    hf = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "ln_" in name:
                parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            elif name.endswith("c_attn.weight"):
                parameter[:, :48].normal_(0, 0.7)
                parameter[:, 48:].normal_(0, 0.3)
            else:
                parameter.normal_(0, 0.3)
    folder = tmp_path_factory.mktemp("tiny_gpt2")
    hf.save_pretrained(folder)
    return LanguageModel.load(folder, dtype=torch.float64)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Random Llama in float64: RMSNorm, rotary positions, two query heads per key head."""
    torch.manual_seed(1)
    config = LlamaConfig(
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=32,
        intermediate_size=48,
        vocab_size=60,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=2,
    )
    hf = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "norm" in name:
                parameter.normal_(1.0, 0.2)
            elif "q_proj" in name or "k_proj" in name:
                parameter.normal_(0, 0.45)
            else:
                parameter.normal_(0, 0.3)
    folder = tmp_path_factory.mktemp("tiny_llama")
    hf.save_pretrained(folder)
    return LanguageModel.load(folder, dtype=torch.float64)


@pytest.fixture(scope="session")
def organism_prompts(organism: LanguageModel) -> pl.DataFrame:
    return ioi_prompts(organism.encode, 12, 5, organism.bos_token_id, ["base"])


@pytest.fixture(scope="session")
def make_prompts() -> Callable[..., pl.DataFrame]:
    return plain_prompts


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Two layers, no MLPs. 0.0 copies the previous token's identity, 0.1 is a decoy that attends
    to the previous token too but writes elsewhere; 1.0 attends from a token to the position whose
    previous token it is (induction), through what 0.0 wrote; 1.1 does nothing.

    Residual stream: token [12], position [12], previous token [12], scratch [12].
    """
    n_tokens, n_positions = 12, 12
    d = 2 * n_tokens + 2 * n_positions
    d_head = d // 2
    config = GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=d,
        n_positions=n_positions,
        vocab_size=n_tokens,
        n_inner=4,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    hf = GPT2LMHeadModel(config)
    token, position = torch.arange(n_tokens), n_tokens + torch.arange(n_positions)
    previous, scratch = 2 * n_tokens + torch.arange(n_tokens), 3 * n_tokens + torch.arange(12)
    unit = torch.arange(n_tokens)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        trunk = hf.transformer
        trunk.wte.weight[token, token] = 1.0
        trunk.wpe.weight[unit, position] = 1.0

        def put(layer: int, head: int, part: str, rows: torch.Tensor, size: float) -> None:
            start = ("q", "k", "v").index(part) * d + head * d_head
            trunk.h[layer].attn.c_attn.weight[rows, start + torch.arange(len(rows))] = size

        def write(layer: int, head: int, columns: torch.Tensor, size: float) -> None:
            rows = head * d_head + torch.arange(len(columns))
            trunk.h[layer].attn.c_proj.weight[rows, columns] = size

        for head in (0, 1):
            put(0, head, "q", position[1:], 3.0)
            put(0, head, "k", position[:-1], 3.0)
        put(0, 0, "v", token, 1.0)
        write(0, 0, previous, 1.0)
        put(0, 1, "v", position, 1.0)
        write(0, 1, scratch, 1.0)
        put(1, 0, "q", token, 3.0)
        put(1, 0, "k", previous, 3.0)
    folder = tmp_path_factory.mktemp("planted")
    hf.save_pretrained(folder)
    return LanguageModel.load(folder)


@pytest.fixture(scope="module")
def case(
    request: pytest.FixtureRequest,
) -> Case:
    """A model of MODELS with prompts and heads that fire in them."""
    model: LanguageModel = request.getfixturevalue(request.param)
    if request.param == "organism":
        prompts = request.getfixturevalue("organism_prompts").head(6)
    else:
        prompts = request.getfixturevalue("make_prompts")(model, 4, 10)
    return model, *firing_roots(model, prompts, 3)
