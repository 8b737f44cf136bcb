"""Sizes read from a config.json directly are those that transformers reads from it."""

from pathlib import Path

import pytest
from transformers import AutoConfig, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config

from mechinterp_assets.model import shape
from mechinterp_assets.model.shape import READ_DIRECTLY, ModelError, read_shape, shape_of

CONFIGS = {
    "gpt2": [GPT2Config(), GPT2Config(n_layer=3, n_head=4, n_embd=64, n_inner=100)],
    "llama": [
        LlamaConfig(),
        LlamaConfig(hidden_size=96, num_attention_heads=6, num_key_value_heads=2, head_dim=8),
    ],
    "mistral": [MistralConfig(), MistralConfig(hidden_size=96, num_attention_heads=6)],
    "qwen2": [Qwen2Config(), Qwen2Config(hidden_size=96, num_attention_heads=6)],
}


@pytest.mark.parametrize("family", READ_DIRECTLY)
def test_direct_reading_agrees_with_transformers(family: str, tmp_path: Path) -> None:
    for number, config in enumerate(CONFIGS[family]):
        folder = tmp_path / str(number)
        config.save_pretrained(folder)
        direct = shape._shape_of_file(folder / "config.json")
        assert direct == shape_of(AutoConfig.from_pretrained(folder))


def test_a_config_without_its_defaults_is_left_to_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 3}')
    assert shape._shape_of_file(tmp_path / "config.json") is None
    assert (read_shape(tmp_path).n_layers, read_shape(tmp_path).n_heads) == (3, 12)


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no readable config for model"):
        read_shape(tmp_path)
