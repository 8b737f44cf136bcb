"""Harvest and bridges are one model in every precision, whatever its positions are."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mechinterp_assets.activations.harvest import capture_z, difference_from_bridge
from mechinterp_assets.model.agreement import disagreement
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import same_layer
from tests.model.position_models import LAYERS, SCHEMES, long_ids, write_model

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NAMES = [f"blocks.{layer}.attn.hook_z" for layer in range(LAYERS)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("positions")
    return {scheme: write_model(folder, scheme) for scheme in SCHEMES}


@pytest.fixture(scope="module", params=[(s, d) for s in SCHEMES for d in DTYPES], ids=str)
def model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> LanguageModel:
    scheme, dtype = request.param
    return LanguageModel.load(folders[scheme], dtype=dtype)


def worst(differences: dict[int, float]) -> float:
    return max(differences.values())


@torch.no_grad()
def test_harvest_and_bridges_agree_at_1024_positions(model: LanguageModel) -> None:
    ids = long_ids()
    assert worst(difference_from_bridge(model, ids)) <= same_layer(model.dtype)
    # Folding rounds every weight anew: 2**-9 of each in bfloat16.
    processed = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.0025}[model.dtype]
    assert worst(difference_from_bridge(model, ids, view="processed")) <= processed
    # From the tokens on, where what is rounded differently has layers to grow.
    harvested = capture_z(model, ids)
    logits, cache = model.raw.run_with_cache(ids, names_filter=[*NAMES, PATTERN])
    for layer, name in enumerate(NAMES):
        assert disagreement(cache[name].flatten(2), harvested[layer]) < 0.02
    expected = model.hf(ids).logits.float().log_softmax(-1)
    assert disagreement(logits.log_softmax(-1), expected) < 2e-3
    assert cache[PATTERN][..., 512:, :].amax(-1).mean() > 0.2  # uniform: 1/512 to 1/1024


PATTERN = "blocks.1.attn.hook_pattern"


def test_the_gate_sees_rounded_rotary_frequencies(model: LanguageModel) -> None:
    """What casting a whole module does to its buffers, which went unnoticed once."""
    if model.config.positional != "rotary" or model.dtype == torch.float32:
        pytest.skip("nothing to round")
    frequencies = [
        module.inv_freq
        for module in model.raw.original_model.modules()
        if isinstance(getattr(module, "inv_freq", None), Tensor)
    ]
    exact = [one.clone() for one in frequencies]
    own = [module for module in model.raw.original_model.modules() if hasattr(module, "inv_freq")]
    try:
        for module in own:
            module.inv_freq = module.inv_freq.to(model.dtype).float()
        assert worst(difference_from_bridge(model, long_ids())) > 2 * same_layer(model.dtype)
    finally:
        for module, value in zip(own, exact, strict=True):
            module.inv_freq = value
    assert worst(difference_from_bridge(model, long_ids())) <= same_layer(model.dtype)


def test_a_head_read_as_another_is_far_beyond_the_gate(folders: dict[str, Path]) -> None:
    model = LanguageModel.load(folders["default"], dtype=torch.bfloat16)
    weight = model.raw.blocks[1].attn.v.weight
    turned = torch.nn.Parameter(weight.detach().roll(16, dims=0), requires_grad=False)
    model.raw.blocks[1].attn.v.original_component.weight = turned
    assert worst(difference_from_bridge(model, long_ids()[:, :64])) > 0.5


def test_bridges_leave_the_model_as_it_is(model: LanguageModel) -> None:
    fresh = LanguageModel.load(model.source, dtype=model.dtype)
    before = fresh.weights_hash
    _ = fresh.raw, fresh.processed
    del fresh.__dict__["weights_hash"]
    assert fresh.weights_hash == before
    assert fresh.hf.config._attn_implementation == "sdpa"
    shared = {p.data_ptr() for p in fresh.hf.parameters()}
    bridged = dict(fresh.raw.original_model.named_parameters())
    own = [name for name, p in bridged.items() if p.data_ptr() not in shared]
    # One matrix of queries, keys and values is split into three of the bridge's own.
    assert not own or (fresh.config.architecture == "gpt2" and all(".attn." in n for n in own))


@torch.no_grad()
def test_hooks_see_and_give_float32(folders: dict[str, Path]) -> None:
    model = LanguageModel.load(folders["default"], dtype=torch.bfloat16)
    ids, seen = long_ids()[:, :8], []

    def look(value: Tensor, hook: object) -> None:
        seen.append(value.dtype)

    def in_place(value: Tensor, hook: object) -> None:
        value[:, :, 0] = 0.0

    def instead(value: Tensor, hook: object) -> Tensor:
        return torch.cat([torch.zeros_like(value[:, :, :1]), value[:, :, 1:]], dim=2)

    names = [f"blocks.1.{n}" for n in ("hook_resid_pre", "attn.hook_z", "attn.hook_pattern")]
    logits = model.raw.run_with_hooks(ids, fwd_hooks=[(name, look) for name in names])
    assert set(seen) == {torch.float32}
    assert logits.dtype == torch.float32
    z = "blocks.1.attn.hook_z"
    first, second = (model.raw.run_with_hooks(ids, fwd_hooks=[(z, h)]) for h in (in_place, instead))
    assert torch.equal(first, second)
    assert (first - logits).abs().max() > 1e-2
    _, cache = model.raw.run_with_cache(ids, names_filter=names)
    assert {value.dtype for value in cache.values()} == {torch.float32}
    torch.testing.assert_close(cache[names[2]].sum(-1), torch.ones(1, 4, 8), rtol=1e-6, atol=0)
