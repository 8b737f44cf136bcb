"""Sizes of models from their configs: read as JSON they are those that transformers reads."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from mechinterp_assets.model import shape as shape_module
from mechinterp_assets.model.shape import ModelError, ModelShape, read_shape, shape_of
from mechinterp_assets.organism import ORGANISM_FOLDER

NEW = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "vocab_size": 99}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 48, "n_head": 4, "n_layer": 3, "n_positions": 77, "vocab_size": 99},
    "gpt_neo": {
        "hidden_size": 48,
        "num_heads": 4,
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
    },
    "gpt_neox": {**NEW, "intermediate_size": 90},
    "llama": {**NEW, "num_key_value_heads": 2, "intermediate_size": 90},
    "mistral": {**NEW, "num_key_value_heads": 2},
    "qwen2": {**NEW, "num_key_value_heads": 2},
    "qwen3": {**NEW, "num_key_value_heads": 2, "head_dim": 20},
    "gemma": {**NEW, "num_key_value_heads": 1, "head_dim": 20},
    "gemma2": {**NEW, "num_key_value_heads": 2, "head_dim": 20},
    "phi": {**NEW, "layer_norm_eps": 1e-6},
    "phi3": {**NEW, "num_key_value_heads": 2, "pad_token_id": 0},
    "opt": {**NEW, "ffn_dim": 90},
    "bloom": {"hidden_size": 48, "n_head": 4, "n_layer": 3},
    "falcon": {**NEW, "alibi": False},
}  # fmt: skip
READ_AS_JSON = {
    "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3"
}  # fmt: skip


@pytest.mark.parametrize("family", list(CONFIGS))
def test_json_gives_what_transformers_gives(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.for_model(family, **CONFIGS[family])
    config.save_pretrained(tmp_path)
    expected = shape_of(AutoConfig.from_pretrained(tmp_path))
    assert (expected.d_model, expected.n_heads) == (48, 4)
    if family in READ_AS_JSON:
        monkeypatch.setitem(sys.modules, "transformers", None)  # importing it fails
    assert read_shape(tmp_path) == expected


def possible(read: Callable[[], ModelShape]) -> ModelShape | None:
    """The sizes, or None where there is no such model: defaults need not fit a small one's."""
    try:
        return read()
    except ModelError:
        return None


@pytest.mark.parametrize("family", sorted(READ_AS_JSON))
def test_what_a_file_leaves_out_is_as_transformers_has_it(family: str, tmp_path: Path) -> None:
    """Old files lack keys that have a default today, and each may be null."""
    config = AutoConfig.for_model(family, **CONFIGS[family])
    config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    whole = json.loads(file.read_text())
    names = ("head_dim", "num_key_value_heads", "n_inner", "intermediate_size")
    keys = [k for k in names if k in whole]
    keys += [k for k in whole if "eps" in k or "position" in k]
    for key in keys:
        without = {k: v for k, v in whole.items() if k != key}
        file.write_text(json.dumps(without))
        expected = possible(lambda: shape_of(AutoConfig.from_pretrained(tmp_path)))
        assert possible(lambda: read_shape(tmp_path)) == expected, key
    for key in ("head_dim", "n_inner"):
        if key in whole and family in {"gpt2", "llama", "mistral"}:  # others do not take null
            file.write_text(json.dumps({**whole, key: None}))
            assert read_shape(tmp_path) == shape_of(AutoConfig.from_pretrained(tmp_path)), key


def test_every_family_is_tested() -> None:
    assert set(shape_module._FAMILIES) == READ_AS_JSON


def test_the_embedded_model_is_read_without_transformers() -> None:
    code = (
        "import sys; from mechinterp_assets.model.shape import read_shape; "
        f"shape = read_shape({str(ORGANISM_FOLDER)!r}); "
        "print(shape.n_layers, shape.d_z, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.split("\n")[0] == "5 192 []"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "unheard-of"}', "[" * 100_000])
def test_a_config_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="no readable config for model") as raised:
        read_shape(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_config_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelError, match="is no file; give a folder"):
        read_shape(tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"heads": 5}, "5"),
        ({"heads": 0}, ""),
        ({"layers": 0}, "n_layers is 0"),
        ({"layers": -1}, "n_layers is -1"),
        ({"width": 0}, "d_model is 0"),
        ({"context": 0}, "n_ctx is 0"),
        ({"vocab_size": 0}, "d_vocab is 0"),
        ({"vocab_size": -3}, "d_vocab is -3"),
        ({"layers": "two"}, "two"),
        ({"layers": 2.5}, "2.5"),
        ({"layers": [2]}, "[2]"),
    ],
)
def test_sizes_that_no_model_has_are_refused(
    family: str, changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(family, **CONFIGS[family]).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    names = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "width": "hidden_size"}
    names["context"] = "max_position_embeddings"
    if family == "gpt2":
        names = {"layers": "n_layer", "heads": "n_head", "width": "n_embd"}
        names["context"] = "n_positions"
    config |= {names.get(key, key): value for key, value in changes.items()}
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError) as raised:
        read_shape(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert expected in str(raised.value)


def test_key_value_heads_that_do_not_divide_the_query_heads_are_refused(tmp_path: Path) -> None:
    AutoConfig.for_model("llama", **CONFIGS["llama"]).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_key_value_heads": 3}))
    with pytest.raises(ModelError, match="4 query heads cannot share 3 key-value heads evenly"):
        read_shape(tmp_path)
