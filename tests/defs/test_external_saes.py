"""A study whose SAEs were trained elsewhere, materialized from the corpus to its dashboards."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.value_offset import value_offset
from mechinterp_assets.sae.folder import CONFIG
from mechinterp_assets.sae.io import load_sae, read_metadata
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from tests.command_line import call
from tests.conftest import HANGS
from tests.foreign_sae import LAYER, foreign_folder

SITE = "theirs.L02"
STUDY = {
    "study": "theirs",
    "description": "one layer with an SAE trained elsewhere",
    "model": {"embedded": "organism"},
    "corpus": {
        "format": "structured",
        "documents": 400,
        "max_tokens": 8000,
        "context_size": 32,
        "held_out_fraction": 0.2,
    },
    "activations": {"layers": [LAYER], "max_tokens": 8000},
    "features": {"max_tokens": 6000, "top_examples": 4, "dfa_examples": 2},
    "heads": {"sequences": 4, "repeat_length": 8},
    "ioi": {"prompts": 16},
    "interventions": {"edges": 1, "prompts": 8, "bootstrap": 50, "published": []},
    "checks": {"l0": [0, 64], "ce_recovered_min": -9},
}


def _materialize(home: Path, studies: Path) -> subprocess.CompletedProcess[str]:
    """The whole study, in a process of its own: studies are read when assets are imported."""
    environment = os.environ | {
        "MECHINTERP_HOME": str(home),
        "MECHINTERP_STUDIES": str(studies),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "mechinterp_assets", "materialize", "theirs"],
        env=environment,
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, organism: LanguageModel) -> Path:
    """A home in which the study was materialized."""
    folder = tmp_path_factory.mktemp("external")
    foreign_folder(folder / "blocks.2.hook_z", organism)
    sae = {"architecture": "external", "path": "blocks.{layer}.hook_z", "evaluation_tokens": 640}
    (folder / "theirs.yaml").write_text(yaml.safe_dump(STUDY | {"sae": sae}))
    done = _materialize(folder / "home", folder / "theirs.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "home"


def test_the_adopted_sae_says_where_it_came_from(home: Path, organism: LanguageModel) -> None:
    lake = Lake(home / "lake")
    row = lake.read("attention_sae", SITE).collect().row(0, named=True)
    assert row["architecture"] == "jumprelu"
    assert row["external_folder"] == str(home.parent / "blocks.2.hook_z")
    assert "called gpt2-small" in row["external_warnings"]
    assert "contexts of 128" in row["external_warnings"]
    assert row["training_tokens"] is None
    assert lake.read("sae_training_log", SITE).collect().is_empty()

    adopted = Tensors(home / "tensors").open("attention_sae", SITE).path
    metadata = read_metadata(adopted)
    assert metadata.weights_hash == organism.weights_hash
    assert metadata.training["external"]["folder_hash"] == row["external_hash"]
    assert load_sae(adopted).weights_hash() == row["weights_hash"]


def test_it_is_read_as_trained_on_processed_weights(home: Path, organism: LanguageModel) -> None:
    """b_dec += c, and both ways of reading it are on record."""
    lake = Lake(home / "lake")
    row = lake.read("attention_sae", SITE).collect().row(0, named=True)
    assert row["trained_on"] == "processed"
    given = load_sae(home.parent / "blocks.2.hook_z")
    adopted = load_sae(Tensors(home / "tensors").open("attention_sae", SITE).path)
    c = value_offset(organism, LAYER)
    torch.testing.assert_close(adopted.b_dec, given.b_dec + c)
    assert torch.equal(adopted.W_enc, given.W_enc)

    readings = lake.read("sae_adoption", SITE).collect()
    by_name = {
        one["reading"]: one for one in readings.filter(pl.col("n_largest").is_null()).to_dicts()
    }
    raw, processed = by_name["raw"], by_name["processed"]
    assert processed["adopted"]
    assert processed["fvu"] < raw["fvu"] < by_name["permuted_heads"]["fvu"]
    assert processed["offset_norm"] == pytest.approx(float(c.norm()))
    evaluation = lake.read("sae_evaluation", SITE).collect().row(0, named=True)
    assert evaluation["fvu"] == pytest.approx(processed["fvu"], abs=0.03)  # other tokens


def test_everything_downstream_works_on_it(home: Path) -> None:
    lake = Lake(home / "lake")
    sae = lake.read("attention_sae", SITE).collect().row(0, named=True)
    statistics = lake.read("feature_statistics", SITE).collect()
    assert len(statistics) == sae["d_sae"]
    assert set(statistics["sae_version"]) == {sae["weights_hash"]}
    evaluation = lake.read("sae_evaluation", SITE).collect().row(0, named=True)
    assert 0 < evaluation["explained_variance"] < 1
    identity = lake.read("feature_dfa", SITE).select(pl.col("identity_error").max()).collect()
    assert identity.item() < 1e-3
    pages = lake.read("feature_dashboards", SITE).collect()
    assert len(pages) > 0
    assert lake.sql("FROM sae_held_out_density_histogram")["n_features"].sum() == round(
        sae["d_sae"] * (1 - evaluation["dead_fraction"])
    )


def test_the_sae_folder_is_printed_and_copied(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(home))
    printed = call(["sae-folder", "theirs", str(LAYER)])
    assert (Path(printed.output.strip()) / CONFIG).is_file()
    copied = call(["sae-folder", "theirs", str(LAYER), "--to", str(tmp_path)])
    assert copied.exit_code == 0
    given = load_sae(Path(printed.output.strip()))
    assert load_sae(tmp_path).weights_hash() == given.weights_hash()
    again = call(["sae-folder", "theirs", str(LAYER), "--to", str(tmp_path)])
    assert again.exit_code == 2
    assert "exists; name an empty or a new folder" in again.output
    missing = call(["sae-folder", "theirs", "3"])
    assert missing.exit_code == 2
