"""SAE folders that another program wrote: what is adopted, folded, warned of and refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.gated import GatedSAE
from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.external import check_explains, external_row, read_external
from mechinterp_assets.sae.folder import CONFIG, WEIGHTS
from mechinterp_assets.sae.io import (
    SaeMetadata,
    check_compatible,
    load_sae,
    read_metadata,
    save_sae,
)
from mechinterp_assets.sae.normalization import SCALER, WHITENING
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import polars_schema

LAYER, CONTEXT = 2, 24


@pytest.fixture(scope="module")
def rows(organism: LanguageModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, organism.config.d_vocab, (12, CONTEXT), generator=generator)
    return capture_z(organism, ids, [LAYER])[LAYER].flatten(0, 1)


def _foreign(folder: Path, sae: SparseAutoencoder, **changes: Any) -> Path:
    """A folder as SAELens writes it: ours without our own metadata."""
    metadata = SaeMetadata("organism", LAYER, None, None, CONTEXT, None, None, dataset="somewhere")
    save_sae(folder, sae, metadata)
    config = json.loads((folder / CONFIG).read_text())
    del config["metadata"]["mechinterp"]
    for name, value in changes.items():
        (config["metadata"] if name in config["metadata"] else config)[name] = value
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


def _identity(rows: Tensor, keep: int) -> StandardSAE:
    """Reconstructs the first `keep` dimensions of x, and the mean elsewhere."""
    d = rows.shape[1]
    eye = torch.eye(d)[:, :keep]
    W_enc = torch.cat([eye, -eye], 1)
    return StandardSAE(W_enc, torch.zeros(2 * keep), W_enc.T.contiguous(), rows.mean(0))


def test_an_external_sae_is_adopted(organism: LanguageModel, rows: Tensor, tmp_path: Path) -> None:
    sae = _identity(rows, 96)
    folder = _foreign(tmp_path / "theirs", sae)
    external = read_external(folder, organism, LAYER, context_size=CONTEXT)
    assert external.warnings == ()
    measures = check_explains(external, rows, 0.1)
    assert torch.equal(external.sae(rows), sae(rows))

    row = external_row(LAYER, external, "attention_sae/organism.L02")
    assert row.schema == polars_schema(table_spec("attention_sae"))
    assert row["external_folder"].item() == str(folder)
    assert row["external_warnings"].item() is None
    assert row["training_tokens"].item() is None

    own = tmp_path / "ours"
    save_sae(own, external.sae, external.adopted(organism, LAYER, CONTEXT))
    metadata = read_metadata(own)
    check_compatible(metadata, organism.config, organism.weights_hash, organism.tokenizer_hash)
    assert metadata.training["external"]["folder_hash"] == external.folder_hash
    assert metadata.dataset == "somewhere"
    assert load_sae(own).weights_hash() == sae.weights_hash()
    assert measures["explained_variance"] > 0.1


def test_the_hash_of_a_folder_is_that_of_both_files(
    organism: LanguageModel, rows: Tensor, tmp_path: Path
) -> None:
    def hash_of(name: str, sae: StandardSAE, **changes: Any) -> str:
        folder = _foreign(tmp_path / name, sae, **changes)
        return read_external(folder, organism, LAYER, context_size=CONTEXT).folder_hash

    first = hash_of("a", _identity(rows, 8))
    assert hash_of("b", _identity(rows, 8)) == first
    assert hash_of("c", _identity(rows, 9)) != first
    assert hash_of("d", _identity(rows, 8), dataset_path="elsewhere") != first


def test_what_does_not_match_is_a_warning(
    organism: LanguageModel, rows: Tensor, tmp_path: Path
) -> None:
    folder = _foreign(
        tmp_path, _identity(rows, 8), model_name="gpt2-small", context_size=64, prepend_bos=False
    )
    external = read_external(folder, organism, LAYER, context_size=CONTEXT)
    assert [warning.split(",")[0] for warning in external.warnings] == [
        "trained on a model called gpt2-small",
        "trained on contexts of 64 tokens",
        "trained on sequences without BOS",
    ]
    warned = external_row(LAYER, external, "x")["external_warnings"].item()
    assert warned.count("; ") == 2
    same = _foreign(tmp_path / "same", _identity(rows, 8), model_name="someone/Organism")
    assert read_external(same, organism, LAYER, context_size=CONTEXT).warnings == ()


def test_an_sae_of_other_activations_is_refused(
    organism: LanguageModel, rows: Tensor, tmp_path: Path
) -> None:
    good = _identity(rows, 96)
    scaled = StandardSAE(good.W_enc, good.b_enc, good.W_dec * 5, good.b_dec)
    external = read_external(_foreign(tmp_path, scaled), organism, LAYER, context_size=CONTEXT)
    with pytest.raises(SaeError, match=r"explains -\d+.* must be above 0\.0 .*raw z"):
        check_explains(external, rows, 0.0)
    good_one = replace(external, sae=good)
    with pytest.raises(SaeError, match=r"must be above 0\.99"):
        check_explains(good_one, rows, 0.99)


def test_folders_that_do_not_fit_are_refused(
    organism: LanguageModel, rows: Tensor, tmp_path: Path
) -> None:
    sae = _identity(rows, 8)
    cases: list[tuple[str, SparseAutoencoder, dict[str, Any], str]] = [
        ("hook", sae, {"hook_name": "blocks.2.hook_resid_pre"}, "hook_resid_pre"),
        ("none", sae, {"metadata": None}, "hook ''"),
        ("layer", sae, {"hook_name": "blocks.1.attn.hook_z"}, "is for layer 1"),
        ("width", _identity(rows[:, :20], 8), {}, "has d_in 20"),
        ("norm", sae, {"normalize_activations": "layer_norm"}, "differs from token to token"),
        ("scale", sae, {"normalize_activations": "expected_average_only_in"}, SCALER),
        ("white", sae, {"normalize_activations": "covariance_whitening"}, WHITENING),
        ("kind", sae, {"architecture": "temporal"}, "unknown SAE architecture 'temporal'"),
    ]
    for name, wrong, changes, message in cases:
        folder = _foreign(tmp_path / name, wrong, **changes)
        with pytest.raises(SaeError, match=message):
            read_external(folder, organism, LAYER, context_size=CONTEXT)
    with pytest.raises(SaeError, match=r"has no cfg\.json"):
        read_external(tmp_path / "nowhere", organism, LAYER, context_size=CONTEXT)


def _random_saes(d: int, d_sae: int) -> dict[str, SparseAutoencoder]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    W_enc, W_dec = draw(d, d_sae), draw(d_sae, d)
    b_enc, b_dec = draw(d_sae), draw(d)
    return {
        "standard": StandardSAE(W_enc, b_enc, W_dec, b_dec),
        "topk": TopKSAE(W_enc, b_enc, W_dec, b_dec, k=5),
        "jumprelu": JumpReLUSAE(W_enc, b_enc, W_dec, b_dec, draw(d_sae).abs()),
        "gated": GatedSAE(W_enc, b_enc, draw(d_sae) / 4, draw(d_sae), W_dec, b_dec),
    }


@pytest.mark.parametrize("name", ["standard", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("kind", ["expected_average_only_in", "covariance_whitening"])
def test_normalisation_is_folded(tmp_path: Path, name: str, kind: str) -> None:
    """The SAE of a checkpoint gives on x what its weights give on normalised x, taken back."""
    d = 10
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, d, generator=generator).double()
    sae = _random_saes(d, 40)[name]
    folder = _foreign(tmp_path, sae, normalize_activations=kind)
    if kind == "expected_average_only_in":
        matrix, mean = 3.5 * torch.eye(d).double(), torch.zeros(d).double()
        (folder / SCALER).write_text('{"scaling_factor": 3.5, "has_whitening": false}')
    else:
        matrix = torch.randn(d, d, generator=generator).double() + 3 * torch.eye(d)
        mean = torch.randn(d, generator=generator).double()
        inverse = torch.linalg.inv(matrix).contiguous()
        save_file({"mean": mean, "matrix": matrix, "inverse_matrix": inverse}, folder / WHITENING)
    normalised = ((x - mean) @ matrix).float()
    folded = load_sae(folder)
    torch.testing.assert_close(
        folded.encode(x.float()), sae.encode(normalised), atol=2e-4, rtol=1e-4
    )
    back = sae(normalised).double() @ torch.linalg.inv(matrix) + mean
    torch.testing.assert_close(folded(x.float()).double(), back, atol=2e-4, rtol=1e-4)


def test_damaged_normalisation_files_are_refused(tmp_path: Path, rows: Tensor) -> None:
    folder = _foreign(
        tmp_path, _identity(rows, 8), normalize_activations="expected_average_only_in"
    )
    for text, message in [
        ("{", "gives no number"),
        ('{"scaling_factor": null}', "gives no number"),
        ('{"scaling_factor": 0}', "above 0"),
    ]:
        (folder / SCALER).write_text(text)
        with pytest.raises(SaeError, match=message):
            load_sae(folder)
    config = json.loads((folder / CONFIG).read_text())
    config["normalize_activations"] = "covariance_whitening"
    (folder / CONFIG).write_text(json.dumps(config))
    d = rows.shape[1]
    eye = torch.eye(d)
    for tensors, message in [
        ({"mean": torch.zeros(d), "matrix": eye}, "shapes"),
        ({"mean": torch.zeros(d), "matrix": eye, "inverse_matrix": 2 * eye}, "not inverse"),
    ]:
        save_file(tensors, folder / WHITENING)
        with pytest.raises(SaeError, match=message):
            load_sae(folder)
    assert set(load_file(folder / WEIGHTS)) == {"W_enc", "b_enc", "W_dec", "b_dec"}
