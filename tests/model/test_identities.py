"""Checks of a loaded model fail where the model is not what is said of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mechinterp_assets.model.agreement import disagreement, worst
from mechinterp_assets.model.capabilities import (
    UnsupportedAnalysisError,
    capabilities_of,
)
from mechinterp_assets.model.identities import Identities, identities_of
from mechinterp_assets.model.language_model import LanguageModel
from tests.model.families import save_family


@pytest.fixture
def llama(tmp_path: Path) -> LanguageModel:
    return LanguageModel.load(save_family("llama", tmp_path))


def test_a_difference_with_nan_passes_nothing() -> None:
    one, nan = torch.ones(3), torch.tensor([1.0, torch.nan, 1.0])
    for found, expected in ((nan, one), (one, nan), (nan, nan), (one, one / 0)):
        assert disagreement(found, expected) == float("inf")
    assert worst([0.0, float("nan")]) == float("inf")
    assert disagreement(2 * one, one) == pytest.approx(1)
    assert disagreement(0 * one, 0 * one) == 0


def test_another_model_than_the_bridge_is_refused(llama: LanguageModel) -> None:
    assert llama.raw is not None  # made before the model changes
    head = llama.hf.lm_head
    head.weight = nn.Parameter(head.weight.detach() * 1.001, requires_grad=False)
    assert identities_of(llama).error("bridge") == pytest.approx(1e-3, rel=0.1)
    with pytest.raises(UnsupportedAnalysisError, match=r"llama\): TransformerLens's bridge"):
        capabilities_of(llama).require("activations")


@pytest.mark.parametrize(
    ("identity", "changes"),
    [
        ("logits", {"eps": 1e-1}),
        ("scores", {"eps": 1e-1}),
        ("value_weights", {"eps": 1e-1}),
        ("logits", {"normalization": "LN"}),
    ],
)
def test_a_wrong_norm_shows(llama: LanguageModel, identity: str, changes: dict[str, Any]) -> None:
    assert identities_of(llama).holds(identity)
    llama.config = replace(llama.config, **changes)
    assert Identities(llama).error(identity) > 1e-3


@pytest.mark.parametrize("identity", ["heads", "values", "stream"])
def test_wrong_weights_show(llama: LanguageModel, identity: str) -> None:
    """Of a head's output, of values, of what an MLP writes."""
    found = Identities(llama)
    cache = found._raw[1]
    name = {"heads": "attn_out", "values": "attn.hook_v", "stream": "mlp_out"}[identity]
    name = f"blocks.1.{name}" if "attn.hook" in name else f"blocks.1.hook_{name}"
    cache[name][..., 0] += 0.1
    assert found.error(identity) > 1e-3


def test_a_wrong_window_shows(tmp_path: Path) -> None:
    model = LanguageModel.load(save_family("mistral, sliding window", tmp_path))
    assert identities_of(model).attention[0].window == 8
    assert identities_of(model).holds("scores")
    model.hf.config.sliding_window = 9
    assert Identities(model).error("scores") > 1e-3
