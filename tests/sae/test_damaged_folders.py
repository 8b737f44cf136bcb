"""SAE folders with anything wrong in either file: refused by what is wrong, or the same SAE."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.external import read_external, read_residual
from mechinterp_assets.sae.folder import CONFIG, WEIGHTS
from mechinterp_assets.sae.io import SaeMetadata, load_sae, read_metadata, save_sae
from mechinterp_assets.sae.normalization import SCALER, WHITENING

D_IN, D_SAE, K = 6, 10, 3


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `ours`, with fingerprints, and `theirs`, as another program writes them."""
    folder = tmp_path_factory.mktemp("saes")
    torch.manual_seed(0)
    sae = TopKSAE(
        torch.randn(D_IN, D_SAE), torch.randn(D_SAE), torch.randn(D_SAE, D_IN), torch.randn(D_IN), K
    )
    metadata = SaeMetadata("m", 2, 2, 3, 16, "0" * 16, "1" * 16)
    for name in ("ours", "theirs"):
        save_sae(folder / name, sae, metadata)
    with_config(folder / "theirs", lambda config: config["metadata"].pop("mechinterp"))
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A folder that another program wrote, to do something to."""
    return Path(shutil.copytree(pristine / "theirs", tmp_path / "sae"))


def with_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


def with_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def read(folder: Path) -> SparseAutoencoder:
    read_metadata(folder)
    return load_sae(folder)


def refusal(folder: Path) -> str:
    with pytest.raises(SaeError) as raised:
        read(folder)
    assert str(folder) in str(raised.value)
    return str(raised.value)


def number(value: float) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors["W_enc"][1].fill_(value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tensors: tensors.pop("b_enc"), "holds ['W_dec', 'W_enc', 'b_dec'], expected"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "'extra'], expected"),
        (
            lambda tensors: tensors.update(b_enc=torch.ones(D_SAE + 1)),
            "b_enc in {file} has shape (11,), cfg.json says (10,)",
        ),
        (
            lambda tensors: tensors.update(W_enc=tensors["W_enc"].T.contiguous()),
            "W_enc in {file} has shape (10, 6), cfg.json says (6, 10)",
        ),
        (
            lambda tensors: tensors.update(W_enc=tensors["W_enc"].char()),
            "W_enc in {file} has dtype torch.int8, cfg.json says torch.float32",
        ),
        (number(float("nan")), "W_enc in {file} has NaN or infinity; restore or retrain"),
        (number(float("-inf")), "W_enc in {file} has NaN or infinity"),
        (lambda tensors: tensors.clear(), "holds [], expected"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    folder: Path, change: Callable[[dict[str, Tensor]], object], expected: str
) -> None:
    with_tensors(folder, change)
    assert expected.format(file=folder / WEIGHTS) in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"d_in": None}, "lacks a usable d_in (None), d_sae (10) or dtype ('float32'"),
        ({"d_in": "6"}, "lacks a usable d_in ('6')"),
        ({"d_sae": 10.7}, "d_sae (10.7)"),
        ({"d_sae": True}, "d_sae (True)"),
        ({"d_in": -6}, "has shape (6, 10), cfg.json says (-6, 10)"),
        ({"dtype": "float99"}, "dtype ('float99', one of ['bfloat16'"),
        ({"dtype": ["float32"]}, "dtype (['float32']"),
        ({"dtype": "float16"}, "has dtype torch.float32, cfg.json says torch.float16"),
        ({"k": None}, "k must be an integer"),
        ({"k": True}, "gives k = True for a topk SAE"),
        ({"k": "3"}, "gives k = '3' for a topk SAE"),
        ({"k": 2.5}, "gives k = 2.5 for a topk SAE"),
        ({"k": float("inf")}, "gives k = inf for a topk SAE"),
        ({"k": float("nan")}, "gives k = nan for a topk SAE"),
        ({"k": 0}, "k is 0; give a value from 1 to d_sae (10)"),
        ({"k": 11}, "k is 11; give a value from 1 to d_sae (10)"),
        ({"architecture": None}, "unknown SAE architecture 'None'"),
        ({"architecture": ["topk"]}, "unknown SAE architecture"),
        ({"metadata": [1]}, "metadata is [1], not a JSON object"),
        ({"metadata": "hook_z"}, "metadata is 'hook_z', not a JSON object"),
        ({"metadata": {"mechinterp": 3}}, "mechinterp is 3, not a JSON object"),
        ({"metadata": {"mechinterp": {"layer": 3}}}, "has no model_name, n_heads"),
        ({"metadata": {"hook_name": "blocks.x.attn.hook_z"}}, "is for hook 'blocks.x.attn.hook_z'"),
        ({"metadata": {"hook_name": None}}, "is for hook 'None'"),
        ({"metadata": None}, "is for hook ''"),
        ({"normalize_activations": "sometimes"}, "normalizes activations by 'sometimes'"),
    ],
)
def test_configs_that_cannot_be_are_refused(
    folder: Path, changes: dict[str, Any], expected: str
) -> None:
    with_config(folder, lambda config: config.update(changes))
    assert expected in refusal(folder)


def test_an_architecture_of_ours_that_is_not_known_names_the_folder(
    pristine: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pristine / "ours", tmp_path / "sae"))
    with_config(folder, lambda c: c["metadata"]["mechinterp"].update(architecture="crosscoder"))
    assert "unknown SAE architecture 'crosscoder' under metadata.mechinterp" in refusal(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"a": "\xff"}']
)
def test_a_config_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)
    assert CONFIG in refusal(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize(
    ("make", "expected"),
    [(os.mkfifo, "not a file (a FIFO)"), (Path.mkdir, "not a file (a folder)")],
)
def test_what_is_no_file_is_answered_at_once(
    folder: Path, name: str, make: Callable[[Path], None], expected: str
) -> None:
    (folder / name).unlink()
    make(folder / name)
    assert expected in refusal(folder)
    assert f"has no {name}" in refusal_without(folder, name)


def refusal_without(folder: Path, name: str) -> str:
    place = folder / name
    place.rmdir() if place.is_dir() else place.unlink()
    return refusal(folder)


def test_options_that_make_weights_infinite_are_refused(folder: Path) -> None:
    """A decoder row of zeros has no norm to divide by."""
    with_config(folder, lambda config: config.update(rescale_acts_by_decoder_norm=True))
    load_sae(folder)
    with_tensors(folder, lambda tensors: tensors["W_dec"][4].zero_())
    assert "folding its options into the weights makes W_dec infinite or NaN" in refusal(folder)


@pytest.mark.parametrize("factor", ["1e-300", "1e300", "1" + "0" * 400, "NaN", '"x"', "[1]"])
def test_a_factor_that_cannot_be_is_refused(folder: Path, factor: str) -> None:
    with_config(
        folder, lambda config: config.update(normalize_activations="expected_average_only_in")
    )
    (folder / SCALER).write_text(f'{{"scaling_factor": {factor}}}')
    refusal(folder)


def test_whitening_with_nan_is_refused(folder: Path) -> None:
    with_config(folder, lambda config: config.update(normalize_activations="covariance_whitening"))
    eye = torch.eye(D_IN)
    mean = torch.zeros(D_IN)
    mean[2] = float("nan")
    save_file({"mean": mean, "matrix": eye, "inverse_matrix": eye.clone()}, folder / WHITENING)
    assert f"mean in {folder / WHITENING} has NaN or infinity" in refusal(folder)


def test_adopted_and_residual_saes_are_held_to_the_same(
    organism: LanguageModel, folder: Path
) -> None:
    with_tensors(folder, number(float("nan")))
    with_config(folder, lambda config: config["metadata"].update(hook_name="blocks.2.attn.hook_z"))
    with pytest.raises(SaeError, match=r"W_enc .* has NaN or infinity"):
        read_external(folder, organism, 2, context_size=16)
    with_tensors(folder, lambda tensors: tensors.pop("W_dec"))
    with pytest.raises(SaeError, match="expected"):
        read_residual(folder, organism, 2)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["ours", "theirs"]))
def test_flipped_bits_are_refused_or_leave_an_sae(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    """Ours is refused or the same: its config has the hash of its weights."""
    folder = tmp_path_factory.mktemp("flipped") / "sae"
    shutil.copytree(pristine / kind, folder)
    name = data.draw(st.sampled_from([CONFIG, WEIGHTS]))
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    message, sae = "", None
    try:
        sae = read(folder)
    except SaeError as error:
        message = str(error)
    assert sae is not None or str(folder) in message
    if sae is not None:
        assert all(weight.isfinite().all() for weight in sae.tensors().values())
        if kind == "ours" and name == WEIGHTS:
            assert sae.weights_hash() == load_sae(pristine / kind).weights_hash()
