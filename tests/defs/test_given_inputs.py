"""What a study is given, model and corpus, taken in or refused by the assets that read it first."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from mechinterp_assets.model.shape import ModelError, read_shape
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study_file import load_study
from tests.conftest import HANGS

ROOT = Path(__file__).resolve().parents[2]
UNUSABLE = ['{"text": null}'] * 5 + ['{"text": " "}'] * 3 + ['{"text": "\\ud800"}'] * 2


def write_study(folder: Path, **sections: Any) -> Path:
    """A study of the given sections on the corpus in `folder`."""
    study = {
        "study": "given",
        "description": "a model and a corpus from outside",
        "corpus": {
            "format": "jsonl",
            "path": "corpus",
            "context_size": 16,
            "held_out_fraction": 0.2,
        },
        "sae": {"architecture": "topk", "d_sae": 32, "k": 4, "training_tokens": 4096},
        **sections,
    }
    file = folder / "given.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def run(folder: Path, **sections: Any) -> tuple[int, str, Lake]:
    """Exit code and last line of a run of the study, and its lake."""
    file = write_study(folder, **sections)
    environment = os.environ | {
        "MECHINTERP_HOME": str(folder / "home"),
        "MECHINTERP_STUDIES": str(file),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.defs.corpus_run", "given"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, done.stdout.strip().splitlines()[-1], Lake(folder / "home" / "lake")


def write_corpus(folder: Path, n_unusable: int) -> None:
    """100 good lines, each in a file of its folder, and some without text."""
    for part in range(2):
        (folder / "corpus" / f"part{part}").mkdir(parents=True, exist_ok=True)
        good = [json.dumps({"text": f"Mary went to place {part} {i} again."}) for i in range(50)]
        odd = UNUSABLE[:n_unusable] if part else []
        (folder / "corpus" / f"part{part}" / "x.jsonl").write_text("\n".join([*good, *odd]))


def test_rows_without_text_are_in_the_metadata(tmp_path: Path) -> None:
    write_corpus(tmp_path, len(UNUSABLE))
    code, line, lake = run(tmp_path, model={"embedded": "organism"})
    assert code == 0, line
    assert json.loads(line) == {
        "rows_skipped_null": 5,
        "rows_skipped_empty": 3,
        "rows_skipped_not_unicode": 2,
        "rows_skipped_not_text": 0,
        "rows_skipped_no_column": 0,
    }
    documents = lake.read("corpus_documents", "given").collect()
    assert documents.height == documents["doc_id"].n_unique() == 100
    assert {doc_id.split("#")[0] for doc_id in documents["doc_id"]} == {
        "part0/x.jsonl",
        "part1/x.jsonl",
    }


def test_a_corpus_with_too_many_of_them_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, len(UNUSABLE))
    (tmp_path / "corpus" / "y.jsonl").write_text('{"text": null}\n' * 4)
    code, line, lake = run(tmp_path, model={"embedded": "organism"})
    assert code == 1
    assert "of 114 rows 14 without usable text (3 empty, 2 not unicode, 9 null): first " in line
    assert "more than 1.00% (corpus.max_skipped_share)" in line
    assert not lake.exists("corpus_documents", "given")


def test_a_model_with_a_tensor_missing_makes_nothing(tmp_path: Path) -> None:
    write_corpus(tmp_path, 0)
    model = shutil.copytree(ORGANISM_FOLDER, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.endswith("h.3.attn.c_proj.weight"))
    del tensors[name]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    code, line, lake = run(tmp_path, model={"path": "model"})
    assert code == 1
    assert f"the weights of {model} do not fit its config.json (tensors 1 missing: {name})" in line
    assert not lake.exists("language_model", "given")


def test_a_context_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, 0)
    positions = read_shape(ORGANISM_FOLDER).n_ctx
    corpus = {"format": "jsonl", "path": "corpus", "context_size": positions + 1}
    study = load_study(write_study(tmp_path, model={"embedded": "organism"}, corpus=corpus))
    resource = LanguageModelResource(root=str(tmp_path), compute=ComputeResource(device="cpu"))
    with pytest.raises(ModelError, match=f"is more than the model's {positions} positions"):
        resource.load(study)
