"""mechinterp sae-check: what a folder is, whether it fits, and the exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.external import folder_hash
from mechinterp_assets.sae.folder import CONFIG
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.home import lake_folder
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.table_spec import polars_schema
from tests.command_line import Called, call
from tests.foreign_sae import LAYER, foreign_folder, write_foreign


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory, organism: LanguageModel) -> Path:
    folder = tmp_path_factory.mktemp("sae") / "blocks.2.hook_z"
    foreign_folder(folder, organism)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path / "home"))


def checked(folder: Path, *options: object, model: object = ORGANISM_FOLDER) -> Called:
    return call(["sae-check", str(folder), str(model), "--tokens", "6000", *map(str, options)])


def changed(folder: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    shutil.copytree(folder, to)
    config = json.loads((to / CONFIG).read_text())
    change(config)
    (to / CONFIG).write_text(json.dumps(config))
    return to


def test_a_folder_that_fits_is_described_and_measured(right: Path) -> None:
    result = checked(right)
    assert result.exit_code == 0, result.output
    for line in (
        "architecture   jumprelu, d_in 192, d_sae 256",
        f"hook           blocks.{LAYER}.attn.hook_z",
        "normalisation  none",
        "trained on     model gpt2-small, context 128",
        f"hash           {folder_hash(right)} (sae.expected_hash)",
        "tokens of built-in generated English",
        "processed weights *",
        "heads permuted (control)",
        "warning: trained on a model called gpt2-small, this one is organism",
        "fits: as trained on processed weights it explains 0.",
    ):
        assert line in result.stdout


def test_a_folder_that_names_the_wrong_layer_is_told_the_right_one(
    right: Path, tmp_path: Path
) -> None:
    folder = changed(
        right, tmp_path / "lie", lambda c: c["metadata"].update(hook_name="blocks.3.attn.hook_z")
    )
    result = checked(folder)
    assert result.exit_code == 1
    assert "does not fit: read as trained on" in result.stdout
    assert f"1 - FVU is largest at blocks.{LAYER}.attn.hook_z 0." in result.stdout


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("blocks.2.hook_mlp_out", "hook 'blocks.2.hook_mlp_out' is none that is used here"),
        ("blocks.9.attn.hook_z", "has no layer 9, but 0..4"),
    ],
)
def test_a_hook_that_is_not_there_is_named(
    right: Path, tmp_path: Path, hook: str, message: str
) -> None:
    folder = changed(right, tmp_path / "sae", lambda c: c["metadata"].update(hook_name=hook))
    result = checked(folder)
    assert result.exit_code == 1
    assert message in result.stdout


def test_what_is_known_of_an_sae_can_be_asked_for(right: Path) -> None:
    result = checked(right, "--expected-l0", 90)
    assert result.exit_code == 1
    assert "expected_l0 says 90" in result.stdout
    assert checked(right, "--max-fvu", 0.01).exit_code == 1
    assert checked(right, "--trained-on", "both").exit_code == 2


def test_wrong_calls_are_told(right: Path, tmp_path: Path) -> None:
    missing = checked(tmp_path / "none")
    assert missing.exit_code == 2
    assert "does not exist; name an SAE's folder" in missing.stderr
    (tmp_path / "k24.pt").write_bytes(b"")
    pickled = checked(tmp_path)
    assert pickled.exit_code == 1
    assert "A .pt file is a pickle, which is not opened here" in pickled.stderr
    short = tmp_path / "short.txt"
    short.write_text("one two")
    assert "less than one sequence of 127" in checked(right, "--text", short).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    no_model = checked(right, model=empty)
    assert no_model.exit_code == 2
    assert "config.json" in no_model.stderr


def test_a_study_gives_its_model_and_its_corpus(right: Path, organism: LanguageModel) -> None:
    assert "tokens of built-in" in checked(right, model="organism").stdout
    ids = organism.encode("The old teacher gave the red ball to Mary and went home. " * 30)
    rows = [
        {
            "sequence": number,
            "split": "train",
            "documents": [0],
            "n_tokens": 64,
            "token_ids": [organism.bos_token_id, *ids[number : number + 63]],
        }
        for number in range(60)
    ]
    frame = pl.DataFrame(rows, schema=polars_schema(table_spec("tokenized_corpus")))
    origin = Provenance(study="organism", run_id="run", code_version="1")
    Lake(lake_folder()).write("tokenized_corpus", "organism", frame, origin)
    result = checked(right, model="organism")
    assert "measured on 3,840 tokens of the corpus of study organism" in result.stdout


def test_an_sae_of_the_residual_stream_is_told_how_to_be_named(right: Path, tmp_path: Path) -> None:
    eye = torch.eye(192)
    W_enc = torch.cat([eye, -eye], 1)
    copies = StandardSAE(W_enc, torch.zeros(384), W_enc.T.contiguous(), torch.zeros(192))
    write_foreign(tmp_path / "a", copies)
    folder = changed(
        tmp_path / "a",
        tmp_path / "b",
        lambda c: c["metadata"].update(hook_name="blocks.2.hook_resid_pre"),
    )
    result = checked(folder)
    assert result.exit_code == 0, result.output
    assert "fits: with residual_sae.centre: " in result.stdout
    wrong = changed(
        right,
        tmp_path / "c",
        lambda c: c["metadata"].update(hook_name="blocks.2.hook_resid_pre"),
    )
    refused = checked(wrong)
    assert refused.exit_code == 1
    assert "of the stream before layer 2 unexplained" in refused.stdout
    assert f"largest at blocks.{LAYER}.attn.hook_z" in refused.stdout
