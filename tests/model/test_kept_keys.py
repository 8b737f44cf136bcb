"""Passes that read kept keys and values, and rows that enter late, against whole hooked passes."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from mechinterp_assets.model import kept_keys
from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.kept_keys import before
from mechinterp_assets.model.kept_run import run_and_keep_keys
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import run_entering

LENGTH, ROWS = 9, 3
SIZES = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 90,
    "vocab_size": 99,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
# Positions, groups and masks of every kind: absolute, rotary, partly rotary, few keys, one key,
# queries and keys normed, a window shorter than the prompt.
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "n_embd": 48,
        "n_head": 4,
        "n_layer": 3,
        "vocab_size": 99,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.2,
    },
    "gpt_neox": SIZES,
    "llama": {**SIZES, "num_key_value_heads": 2},
    "gemma": {**SIZES, "num_key_value_heads": 1, "head_dim": 12},
    "mistral": {**SIZES, "num_key_value_heads": 2, "sliding_window": 4},
    "qwen2": {**SIZES, "num_key_value_heads": 2},
    "qwen3": {**SIZES, "num_key_value_heads": 2, "head_dim": 12},
    "phi": SIZES,
    "opt": {**SIZES, "ffn_dim": 90, "word_embed_proj_dim": 48},
}


def loaded(family: str, folder: Path) -> LanguageModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return LanguageModel.load(folder)


def check_late_entries(model: LanguageModel, *, layers: Sequence[int], view: str) -> None:
    """Edits of z at one position and behind it, of heads of several layers, in one pass."""
    bridge = model.processed if view == "processed" else model.raw
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, model.config.d_vocab, (ROWS, LENGTH), generator=generator)
    names = [f"blocks.{layer}.hook_resid_pre" for layer in layers]
    logits, kept, keys = run_and_keep_keys(bridge, ids, names)
    with torch.no_grad():
        expected = bridge(ids)[:, -1]
    # Float32 sums in another order, through all layers of the model.
    limit = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(logits, expected, rtol=0, atol=limit)
    assert keys is not None, model.config.architecture
    moved = 0.0
    for position in (1, LENGTH // 2, LENGTH - 1):
        index = torch.arange(ROWS).repeat(len(layers))
        hooks = [
            zeroed(layer, range(ROWS * n, ROWS * (n + 1)), 0) for n, layer in enumerate(layers)
        ]
        entering = {
            layer: kept[name][:, position:] for layer, name in zip(layers, names, strict=True)
        }
        with torch.no_grad():
            found = run_entering(bridge, entering, hooks, behind=before(keys, position, index))
        for n, layer in enumerate(layers):
            with torch.no_grad():
                whole = bridge.run_with_hooks(ids, fwd_hooks=[zeroed(layer, range(ROWS), position)])
            own = found[ROWS * n : ROWS * (n + 1)]
            torch.testing.assert_close(own, whole[:, -1], rtol=0, atol=limit)
            moved = max(moved, float((whole[:, -1] - expected).abs().max()))
    assert moved > 100 * limit  # what was edited matters


def zeroed(layer: int, rows: range, position: int) -> NamedHook:
    """The layer's last head is zeroed from a position on, in some rows."""

    def hook(z: Tensor, hook: Any) -> Tensor:
        z[rows.start : rows.stop, position:, -1] = 0.0
        return z

    return f"blocks.{layer}.attn.hook_z", hook


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("view", ["raw", "processed"])
def test_every_family_gives_what_whole_passes_give(family: str, view: str, tmp_path: Path) -> None:
    check_late_entries(loaded(family, tmp_path), layers=(0, 1, 2), view=view)


def test_the_embedded_model_gives_what_whole_passes_give(organism: LanguageModel) -> None:
    check_late_entries(organism, layers=(0, 2, 4), view="processed")


def test_a_real_model_gives_what_whole_passes_give(smollm2_folder: Path) -> None:
    model = LanguageModel.load(smollm2_folder)
    check_late_entries(model, layers=(3, 20, 29), view="processed")


def test_double_precision_agrees_to_rounding(tmp_path: Path) -> None:
    """The shortcut is exact: what is left over shrinks with the precision."""
    loaded("llama", tmp_path)
    model = LanguageModel.load(tmp_path, dtype=torch.float64)
    ids = torch.randint(1, 99, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    name = "blocks.1.hook_resid_pre"
    logits, kept, keys = run_and_keep_keys(model.raw, ids, [name])
    assert keys is not None
    for position in range(1, LENGTH):
        behind = before(keys, position, torch.arange(2))
        with torch.no_grad():
            found = run_entering(model.raw, {1: kept[name][:, position:]}, behind=behind)
        torch.testing.assert_close(found, logits, rtol=0, atol=1e-12)


def test_the_caller_keeps_its_residual_stream(tmp_path: Path) -> None:
    """Hooks change what they are given in place; what was kept of the unedited run stays."""
    model = loaded("llama", tmp_path)
    ids = torch.randint(1, 99, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    names = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"]
    _, kept, keys = run_and_keep_keys(model.raw, ids, names)
    assert keys is not None
    copies = {name: kept[name].clone() for name in names}

    def shift(residual: Tensor, hook: Any) -> Tensor:
        residual += 1.0
        return residual

    entering = {layer: kept[name][:, 3:] for layer, name in enumerate(names)}
    behind = before(keys, 3, torch.tensor([0, 1, 0, 1]))
    with torch.no_grad():
        run_entering(model.raw, entering, [(name, shift) for name in names], behind=behind)
    for name in names:
        assert torch.equal(kept[name], copies[name])


def test_a_model_that_reads_its_cache_otherwise_is_not_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded("llama", tmp_path)
    ids = torch.randint(1, 99, (2, LENGTH))
    right = kept_keys._KeptLayer.update

    def late(self: Any, keys: Tensor, values: Tensor, *rest: Any, **more: Any) -> Any:
        found = right(self, keys, values, *rest, **more)
        return tuple(part.roll(1, dims=2) for part in found)

    monkeypatch.setattr(kept_keys._KeptLayer, "update", late)
    with caplog.at_level(logging.WARNING):
        _, _, keys = run_and_keep_keys(model.raw, ids, [])
    assert keys is None
    assert "LlamaForCausalLM does not take kept keys" in caplog.text


def test_a_model_that_hands_over_no_keys_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded("llama", tmp_path)
    monkeypatch.setattr(
        type(model.raw.blocks[1].attn), "_update_kv_cache", lambda self, k, v, **kwargs: (k, v)
    )
    _, _, keys = run_and_keep_keys(model.raw, torch.randint(1, 99, (2, LENGTH)), [])
    assert keys is None
