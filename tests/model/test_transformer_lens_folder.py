"""A folder in TransformerLens's own format is the model that TransformerLens makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import boot
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

from mechinterp_assets.model.capabilities import capabilities_of
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError, read_shape

SIZES = {"d_model": 16, "n_layers": 2, "n_heads": 4, "d_head": 4, "n_ctx": 20, "d_vocab": 50}
GELU_2L = {**SIZES, "d_mlp": 24, "act_fn": "gelu", "attn_only": False, "normalization_type": "LN"}


def weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random tensors by TransformerLens's names."""
    d, h, dh = (config[name] for name in ("d_model", "n_heads", "d_head"))
    sizes: dict[str, tuple[int, ...]] = {
        "embed.W_E": (config["d_vocab"], d),
        "pos_embed.W_pos": (config["n_ctx"], d),
        "unembed.W_U": (d, config["d_vocab"]),
        "unembed.b_U": (config["d_vocab"],),
        "ln_final.w": (d,),
        "ln_final.b": (d,),
    }
    for layer in range(config["n_layers"]):
        own = f"blocks.{layer}."
        sizes |= {f"{own}attn.W_{name}": (h, d, dh) for name in "QKV"}
        sizes |= {f"{own}attn.b_{name}": (h, dh) for name in "QKV"}
        sizes |= {f"{own}attn.W_O": (h, dh, d), f"{own}attn.b_O": (d,)}
        sizes |= {f"{own}ln1.w": (d,), f"{own}ln1.b": (d,)}
        if not config["attn_only"]:
            width = config["d_mlp"]
            sizes |= {f"{own}mlp.W_in": (d, width), f"{own}mlp.b_in": (width,)}
            sizes |= {f"{own}mlp.W_out": (width, d), f"{own}mlp.b_out": (d,)}
            sizes |= {f"{own}ln2.w": (d,), f"{own}ln2.b": (d,)}
    drawn = torch.Generator().manual_seed(0)
    return {name: 0.5 * torch.randn(size, generator=drawn) for name, size in sizes.items()}


def saved(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("change", [{}, {"attn_only": True}, {"act_fn": "relu"}])
def test_logits_are_those_of_transformer_lens(tmp_path: Path, change: dict[str, Any]) -> None:
    config = {**GELU_2L, **change}
    tensors = weights(config)
    model = LanguageModel.load(saved(tmp_path, config, tensors))
    theirs_config = TransformerBridgeConfig(
        **config, positional_embedding_type="standard", architecture="TransformerLensNative"
    )
    theirs = boot(theirs_config, device="cpu")
    theirs.load_state_dict(convert_tl_checkpoint(tensors, theirs_config), strict=True)
    ids = torch.randint(0, 50, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(ids)
        torch.testing.assert_close(model.hf(ids).logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.raw(ids), expected, atol=1e-5, rtol=1e-5)
    capabilities_of(model).require("activations", "direct_effects", "tracing", "edges")
    assert read_shape(tmp_path) == model.config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"act_fn": "solu_ln"}, "act_fn: 'solu_ln'"),
        ({"shortformer_pos": True}, "positional_embedding_type"),
        ({"d_head": 8}, "d_head: 8"),
    ],
)
def test_what_no_gpt2_computes_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    config = {**GELU_2L, **change}
    with pytest.raises(ModelError, match="that no GPT-2 computes") as raised:
        LanguageModel.load(saved(tmp_path, config, weights(config)))
    assert said in str(raised.value)


def test_tensors_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    tensors = weights(GELU_2L)
    more = {**tensors, "blocks.0.attn.W_X": torch.zeros(2)}
    with pytest.raises(ModelError, match="W_X"):
        LanguageModel.load(saved(tmp_path, GELU_2L, more))
    del tensors["blocks.1.attn.W_O"]
    with pytest.raises(ModelError, match=r"no tensor blocks\.1\.attn\.W_O"):
        LanguageModel.load(saved(tmp_path, GELU_2L, tensors))
