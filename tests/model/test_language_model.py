"""The model's views agree with each other, for learned positions and for RoPE with GQA."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.model_files import check_weight_files
from mechinterp_assets.model.shape import ModelError, read_shape
from mechinterp_assets.organism import ORGANISM_FOLDER


def random_ids(model: LanguageModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.d_vocab, (2, 12), generator=generator)


def check_views(model: LanguageModel) -> None:
    ids = random_ids(model)
    with torch.no_grad():
        expected = model.hf(ids).logits
        torch.testing.assert_close(model.raw(ids), expected, atol=1e-4, rtol=1e-4)
        processed = model.processed(ids)
    torch.testing.assert_close(
        processed.log_softmax(-1), expected.log_softmax(-1), atol=1e-4, rtol=1e-4
    )
    assert model.weights.b_V.stacked().abs().max() == 0
    shape, weights = model.config, model.weights
    assert weights.W_K.shape == (shape.n_layers, shape.n_heads, shape.d_model, shape.d_head)


def test_views_of_the_embedded_model(organism: LanguageModel) -> None:
    check_views(organism)
    assert organism.config == read_shape(ORGANISM_FOLDER)
    assert organism.config.positional == "absolute"


def test_views_of_a_rotary_model_with_grouped_queries(shared: Path) -> None:
    model = LanguageModel.load(shared / "models" / "stories260K")
    check_views(model)
    assert model.config.positional == "rotary"
    assert model.config.n_kv_heads < model.config.n_heads
    assert model.token_strings()[5] == "<5>"


def test_fingerprints_follow_content_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    config.bos_token_id = 0
    small = GPT2LMHeadModel(config)
    small.save_pretrained(tmp_path / "a")
    small.save_pretrained(tmp_path / "b")
    first, second = (LanguageModel.load(tmp_path / name) for name in "ab")
    assert first.weights_hash == second.weights_hash
    assert first.tokenizer_hash == second.tokenizer_hash
    next(small.parameters()).data[0, 0] += 1e-3
    small.save_pretrained(tmp_path / "c")
    assert LanguageModel.load(tmp_path / "c").weights_hash != first.weights_hash


def test_replaced_z_acts_within_its_block_only(organism: LanguageModel) -> None:
    ids = random_ids(organism)
    with torch.no_grad():
        before = organism.hf(ids).logits
        with organism.replaced_z(0, torch.zeros_like):
            within = organism.hf(ids).logits
        after = organism.hf(ids).logits
    assert (within - before).abs().max() > 1e-3
    assert torch.equal(after, before)


def test_errors_name_the_remedy(tmp_path: Path, organism: LanguageModel) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json; give a folder"):
        LanguageModel.load(tmp_path)
    with pytest.raises(ModelError, match=r"has no \*\.safetensors"):
        check_weight_files(tmp_path)
    with pytest.raises(ModelError, match="has layers 0"):
        organism.output_projection(organism.config.n_layers)
