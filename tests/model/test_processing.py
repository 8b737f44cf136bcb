"""Processing in pieces is processing; what it leaves alone is shared, what it changes is new."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
)

from mechinterp_assets.model import language_model
from mechinterp_assets.model.language_model import LanguageModel

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=3, n_head=4),
    "opt": lambda: OPTConfig(**SIZES, ffn_dim=24, word_embed_proj_dim=16),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "phi": lambda: PhiConfig(**SIZES),
    "llama": lambda: LlamaConfig(**GROUPED),
    "tied_llama": lambda: LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**GROUPED),
    "gemma": lambda: GemmaConfig(**GROUPED, head_dim=4),
    "mixtral": lambda: MixtralConfig(**GROUPED, num_local_experts=2),
}


def write(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.bos_token_id = 0
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def processed(model: LanguageModel) -> dict[str, torch.Tensor]:
    bridge = model.processed.original_model
    return {name: value.detach() for name, value in bridge.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_processing_layer_by_layer_changes_nothing(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LanguageModel.load(write(tmp_path, name), dtype=dtype)
    before = model.weights_hash
    in_pieces = processed(model)
    with monkeypatch.context() as patch:
        patch.setattr(
            language_model,
            "process",
            lambda bridge: bridge.enable_compatibility_mode(disable_warnings=True),
        )
        at_once = processed(LanguageModel.load(tmp_path, dtype=dtype))
    assert in_pieces.keys() == at_once.keys()
    for key, value in at_once.items():
        assert value.dtype == in_pieces[key].dtype
        assert torch.equal(value, in_pieces[key]), key
    raw = dict(model.raw.original_model.named_parameters())
    assert any(not torch.equal(value, raw[key]) for key, value in in_pieces.items() if key in raw)
    del model.__dict__["weights_hash"]
    assert model.weights_hash == before


@torch.no_grad()
def test_only_what_processing_changes_is_held_twice(tmp_path: Path) -> None:
    model = LanguageModel.load(write(tmp_path, "tied_llama"))
    own = {parameter.data_ptr() for parameter in model.hf.parameters()}
    twice = {name for name, value in processed(model).items() if value.data_ptr() not in own}
    layer = "model.layers.0."
    changed = {name for name in twice if "norm" not in name}
    assert {name.split(".")[-3] for name in changed if name.startswith(layer)} == {
        *("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    }
    assert {name for name in changed if "layers" not in name} == {
        "lm_head._original_component.weight"
    }
