"""What processed weights take from z, against both views of TransformerLens."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError
from mechinterp_assets.model.value_offset import value_offset

SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
FAMILIES: dict[str, PretrainedConfig] = {
    "gpt_neox": GPTNeoXConfig(**SIZES),  # LayerNorm with bias, value bias, parallel blocks
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),  # RMSNorm, value bias, shared keys
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2),  # neither bias
}


@pytest.fixture(scope="module", params=["organism", *FAMILIES])
def model(
    request: pytest.FixtureRequest,
    organism: LanguageModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> LanguageModel:
    if request.param == "organism":
        return organism
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(FAMILIES[request.param])
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # biases start at 0
    hf.save_pretrained(folder)
    return LanguageModel.load(folder)


def test_the_views_differ_by_the_offset_at_every_token(model: LanguageModel) -> None:
    ids = torch.randint(1, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    harvested = capture_z(model, ids)
    _, cache = model.processed.run_with_cache(ids)
    for layer, z in harvested.items():
        processed = cache[f"blocks.{layer}.attn.hook_z"].flatten(2)
        offset = value_offset(model, layer)
        torch.testing.assert_close(z - processed, offset.expand_as(z), rtol=1e-3, atol=1e-4)
        has_bias = model.config.architecture != "llama"
        assert (float(offset.norm()) > 0.1) == has_bias


def test_the_model_is_as_it_was_afterwards(organism: LanguageModel) -> None:
    ids = torch.randint(1, 60, (1, 9), generator=torch.Generator().manual_seed(1))
    before = capture_z(organism, ids, [3])[3]
    value_offset(organism, 3)
    assert torch.equal(capture_z(organism, ids, [3])[3], before)
    with pytest.raises(ModelError, match="layer 5 does not exist"):
        value_offset(organism, 5)
