"""Models placed by a device map: the same numbers, or a refusal that says why."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.placement import settle
from mechinterp_assets.model.settings import ModelSettings
from mechinterp_assets.model.shape import ModelError
from mechinterp_assets.organism import ORGANISM_FOLDER
from tests.model.test_language_model import check_views


def test_a_map_to_one_device_is_no_map(organism: LanguageModel) -> None:
    placed = LanguageModel.load(ORGANISM_FOLDER, device_map={"": "cpu"})
    assert placed.device == torch.device("cpu")
    assert not hasattr(placed.hf, "hf_device_map")
    assert not any(hasattr(module, "_hf_hook") for module in placed.hf.modules())
    check_views(placed)
    assert placed.weights_hash == organism.weights_hash


def test_weights_that_are_offloaded_are_refused(tmp_path: Path) -> None:
    kept: Any = SimpleNamespace(hf_device_map={"transformer.wte": 0, "transformer.h.1": "cpu"})
    with pytest.raises(ModelError, match=r"leaves 1 parts of big on cpu \(transformer\.h\.1"):
        settle(kept, "big")
    on_disk: Any = SimpleNamespace(hf_device_map={"": "disk"})
    with pytest.raises(ModelError, match="on disk"):
        settle(on_disk, "big")


def test_analysis_of_a_model_on_several_devices_is_at_its_embedding() -> None:
    both: Any = nn.Module()
    both.hf_device_map = {"embed": 0, "layers": 1}
    both.get_input_embeddings = lambda: nn.Embedding(2, 2)
    assert settle(both, "big") == torch.device("cpu")
    assert both.hf_device_map


def test_a_study_says_auto_or_none() -> None:
    model = {"embedded": "organism", "device_map": "auto"}
    assert ModelSettings.model_validate(model).device_map == "auto"
    with pytest.raises(ValueError, match="device_map"):
        ModelSettings.model_validate({**model, "device_map": "cuda:1"})
