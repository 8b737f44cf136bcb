"""SAE folders: round trips, SAELens's names and options, refusals, and the publishing gate."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sae_reference import random_sae
from safetensors.torch import load_file, save_file

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.folder import CONFIG, WEIGHTS
from mechinterp_assets.sae.io import (
    SaeMetadata,
    check_compatible,
    load_sae,
    read_metadata,
    save_sae,
    verify_saved,
)
from mechinterp_assets.sae.traits import architecture_names

HEADS, D_HEAD, D_SAE, K = 3, 4, 30, 5
D_IN = HEADS * D_HEAD


@pytest.fixture(params=architecture_names())
def sae(request: pytest.FixtureRequest) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.randn(D_SAE, D_IN, generator=generator)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    weights = (
        W_dec.T.contiguous() * 0.9,
        0.1 * torch.randn(D_SAE, generator=generator),
        W_dec,
        0.1 * torch.randn(D_IN, generator=generator),
    )
    return random_sae(request.param, *weights, k=K)


@pytest.fixture
def metadata() -> SaeMetadata:
    return SaeMetadata(
        model_name="a-model",
        layer=2,
        n_heads=HEADS,
        d_head=D_HEAD,
        context_size=16,
        weights_hash="0" * 16,
        tokenizer_hash="1" * 16,
        dataset="a corpus",
        training={"tokens": 5},
    )


def _rows(n: int = 50) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(3))


def test_a_round_trip_keeps_every_bit(
    sae: SparseAutoencoder, metadata: SaeMetadata, tmp_path: Path
) -> None:
    save_sae(tmp_path / "sae", sae, metadata)
    loaded = load_sae(tmp_path / "sae")
    assert type(loaded) is type(sae)
    assert loaded.k == sae.k
    assert loaded.weights_hash() == sae.weights_hash()
    assert torch.equal(loaded(_rows()), sae(_rows()))
    assert read_metadata(tmp_path / "sae") == metadata
    config = json.loads((tmp_path / "sae" / CONFIG).read_text())
    assert config["metadata"]["hook_name"] == "blocks.2.attn.hook_z"
    assert config["reshape_activations"] == "hook_z"


@pytest.mark.parametrize(
    ("architecture", "on_disk", "names"),
    [
        ("standard", "standard", {"b_enc"}),
        ("topk", "topk", {"b_enc"}),
        ("jumprelu", "jumprelu", {"b_enc", "threshold"}),
        ("batchtopk", "jumprelu", {"b_enc", "threshold"}),
        ("matryoshka", "jumprelu", {"b_enc", "threshold"}),
        ("gated", "gated", {"b_gate", "r_mag", "b_mag"}),
    ],
)
def test_folders_use_sae_lens_names_and_keep_ours_in_the_metadata(
    architecture: str, on_disk: str, names: set[str], metadata: SaeMetadata, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    sae = random_sae(
        architecture,
        torch.randn(D_IN, D_SAE, generator=generator),
        torch.zeros(D_SAE),
        torch.randn(D_SAE, D_IN, generator=generator),
        torch.zeros(D_IN),
        k=K,
    )
    save_sae(tmp_path, sae, metadata)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["architecture"] == on_disk
    assert config["metadata"]["mechinterp"]["architecture"] == architecture
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert set(load_file(tmp_path / WEIGHTS)) == {"W_enc", "W_dec", "b_dec"} | names
    assert load_sae(tmp_path).architecture == architecture
    # a folder of another program has no such entry: the architecture on disk is what it is
    del config["metadata"]["mechinterp"]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    foreign = load_sae(tmp_path)
    assert foreign.architecture == on_disk
    assert torch.equal(foreign.encode(_rows()), sae.encode(_rows()))
    other = "topk" if on_disk == "gated" else "gated"
    _edit(tmp_path, metadata={"mechinterp": {"architecture": other}})
    with pytest.raises(SaeError, match=f"{other!r}, which is not written so"):
        load_sae(tmp_path)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_b_dec_that_is_not_subtracted_is_folded_into_the_biases(
    architecture: str, metadata: SaeMetadata, tmp_path: Path
) -> None:
    """apply_b_dec_to_input false: the SAE reads x itself, and still adds b_dec to x_hat."""
    generator = torch.Generator().manual_seed(4)
    W_enc, W_dec = (torch.randn(D_IN, D_SAE, generator=generator) for _ in range(2))
    b_enc, b_dec = torch.randn(D_SAE, generator=generator), torch.randn(D_IN, generator=generator)
    reads_x = random_sae(architecture, W_enc, b_enc, W_dec.T, torch.zeros(D_IN), k=K)
    written = random_sae(architecture, W_enc, b_enc, W_dec.T, b_dec, k=K)
    save_sae(tmp_path, written, metadata)
    _edit(tmp_path, apply_b_dec_to_input=False, metadata={})
    loaded, x = load_sae(tmp_path), _rows()
    torch.testing.assert_close(loaded.encode(x), reads_x.encode(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loaded(x), reads_x(x) + b_dec, rtol=1e-4, atol=1e-4)


def test_a_threshold_may_stay_in_float32(metadata: SaeMetadata, tmp_path: Path) -> None:
    """SAELens trains thresholds in float32 whatever the SAE's dtype, and writes them so."""
    sae = random_sae(
        "jumprelu", torch.eye(D_IN), torch.zeros(D_IN), torch.eye(D_IN), torch.zeros(D_IN), k=K
    )
    save_sae(tmp_path, sae, metadata)
    weights = {
        name: tensor.clone() if name == "threshold" else tensor.bfloat16()
        for name, tensor in load_file(tmp_path / WEIGHTS).items()
    }
    save_file(weights, tmp_path / WEIGHTS)
    _edit(tmp_path, dtype="bfloat16")
    assert load_sae(tmp_path).tensors()["threshold"].dtype == torch.float32
    weights["b_enc"] = weights["b_enc"].float()
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(SaeError, match=r"b_enc in .* has dtype"):
        load_sae(tmp_path)


def test_sae_lens_options_are_folded_into_the_weights(tmp_path: Path) -> None:
    """A folder as SAELens's trainer writes it: activations rescaled by the decoder's norm, and
    b_dec not subtracted from the input."""
    generator = torch.Generator().manual_seed(4)
    w = {
        "W_enc": torch.randn(D_IN, D_SAE, generator=generator),
        "b_enc": torch.randn(D_SAE, generator=generator),
        "W_dec": torch.randn(D_SAE, D_IN, generator=generator),
        "b_dec": torch.randn(D_IN, generator=generator),
    }
    save_file(w, tmp_path / WEIGHTS)
    config = {
        "architecture": "topk",
        "d_in": D_IN,
        "d_sae": D_SAE,
        "k": K,
        "dtype": "torch.float32",
        "apply_b_dec_to_input": False,
        "rescale_acts_by_decoder_norm": True,
        "normalize_activations": "none",
        "metadata": {"hook_name": "blocks.4.attn.hook_z", "model_name": "gpt2-small"},
    }
    (tmp_path / CONFIG).write_text(json.dumps(config))
    x, norm = _rows(), w["W_dec"].norm(dim=1)
    pre = (x @ w["W_enc"] + w["b_enc"]) * norm
    values, index = pre.topk(K, dim=1)
    f = torch.zeros_like(pre).scatter_(1, index, values.relu())
    sae = load_sae(tmp_path)
    torch.testing.assert_close(sae.encode(x), f, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae(x), (f / norm) @ w["W_dec"] + w["b_dec"], rtol=1e-4, atol=1e-4)
    found = read_metadata(tmp_path)
    assert (found.layer, found.model_name, found.weights_hash) == (4, "gpt2-small", None)


def test_weights_that_are_not_float32_are_not_saved(metadata: SaeMetadata, tmp_path: Path) -> None:
    eye, zeros = torch.eye(D_IN, dtype=torch.float64), torch.zeros(D_IN, dtype=torch.float64)
    sae = random_sae("standard", eye, zeros, eye, zeros, k=K)
    with pytest.raises(SaeError, match=r"W_enc of the SAE is torch\.float64"):
        save_sae(tmp_path / "sae", sae, metadata)
    assert not (tmp_path / "sae").exists()


def _edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config.update(changes)
    (folder / CONFIG).write_text(json.dumps(config))


def test_damaged_or_unknown_folders_are_refused(
    sae: SparseAutoencoder, metadata: SaeMetadata, tmp_path: Path
) -> None:
    def fresh(name: str) -> Path:
        save_sae(tmp_path / name, sae, metadata)
        return tmp_path / name

    with pytest.raises(SaeError, match=r"no cfg\.json"):
        load_sae(tmp_path / "nothing")
    folder = fresh("architecture")
    _edit(folder, architecture="crosscoder")
    with pytest.raises(SaeError, match="unknown SAE architecture 'crosscoder'"):
        load_sae(folder)
    folder = fresh("width")
    _edit(folder, d_in=D_IN + 1)
    with pytest.raises(SaeError, match=r"W_enc in .* has shape \(12, 30\), cfg.json says"):
        load_sae(folder)
    folder = fresh("dtype")
    _edit(folder, dtype="float16")
    with pytest.raises(SaeError, match=r"dtype torch\.float32"):
        load_sae(folder)
    _edit(folder, dtype="int8")
    with pytest.raises(SaeError, match="int8"):
        load_sae(folder)
    folder = fresh("normalised")
    _edit(folder, normalize_activations="layer_norm")
    with pytest.raises(SaeError, match="layer_norm"):
        load_sae(folder)
    folder = fresh("truncated")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(SaeError, match="is damaged"):
        load_sae(folder)
    folder = fresh("not json")
    (folder / CONFIG).write_text("{")
    with pytest.raises(SaeError, match="is not JSON"):
        load_sae(folder)
    folder = fresh("missing tensor")
    weights = load_file(folder / WEIGHTS)
    del weights["b_dec"]
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(SaeError, match="b_dec"):
        load_sae(folder)
    folder = fresh("nan")
    weights = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    weights["W_dec"][0, 0] = float("nan")
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(SaeError, match="NaN"):
        load_sae(folder)
    folder = fresh("changed")
    weights = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    weights["W_dec"][0, 0] += 1
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(SaeError, match="do not belong together"):
        load_sae(folder)


def test_another_model_tokenizer_or_width_is_refused(organism: LanguageModel) -> None:
    shape = organism.config
    metadata = SaeMetadata.of(organism, 0, context_size=16)
    keys = (organism.weights_hash, organism.tokenizer_hash)
    check_compatible(metadata, shape, *keys)
    cases = [
        (replace(metadata, weights_hash="f" * 16), "another base model"),
        (replace(metadata, tokenizer_hash="f" * 16), "another tokenizer"),
        (replace(metadata, d_head=shape.d_head + 1), "load an SAE of this model"),
        (replace(metadata, layer=shape.n_layers), "the model has layers"),
        (replace(metadata, weights_hash=None), "no fingerprint of its base model"),
    ]
    for wrong, message in cases:
        with pytest.raises(SaeError, match=message):
            check_compatible(wrong, shape, *keys)


def test_metadata_of_another_width_is_not_saved(
    sae: SparseAutoencoder, metadata: SaeMetadata, tmp_path: Path
) -> None:
    with pytest.raises(SaeError, match="n_heads \\* d_head = 16"):
        save_sae(tmp_path, sae, replace(metadata, n_heads=4))


def test_the_gate_passes_what_was_saved_and_stops_what_was_not(
    sae: SparseAutoencoder, metadata: SaeMetadata, tmp_path: Path
) -> None:
    save_sae(tmp_path, sae, metadata)
    measures = verify_saved(tmp_path, sae, _rows())
    assert set(measures) == {"l0", "explained_variance"}
    other = load_sae(tmp_path)
    other.W_dec = other.W_dec * 1.01
    with pytest.raises(SaeError, match="explained_variance"):
        verify_saved(tmp_path, other, _rows())
