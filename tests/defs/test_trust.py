"""Attempts to break what the platform promises: each must be refused, with the remedy named."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechinterp_assets.activations.cache import ActivationReader
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError
from mechinterp_assets.orchestration.artefacts import read_sae
from mechinterp_assets.orchestration.inputs import Inputs, StaleInputError
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.resources.compute import ComputeError, ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.io import load_sae, read_metadata, save_sae
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.manifest import ArtefactError
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.study_file import load_study
from tests.defs.conftest import Materialized

PROVENANCE = Provenance(study="tiny", run_id="attempt", code_version="test")


@pytest.fixture
def copy(tiny: Materialized, tmp_path: Path) -> Iterator[tuple[Lake, Tensors]]:
    """A copy of the tiny study's lake and tensors that a test may damage."""
    shutil.copytree(tiny.home / "lake", tmp_path / "lake", symlinks=True)
    shutil.copytree(tiny.home / "tensors", tmp_path / "tensors", symlinks=True)
    return Lake(tmp_path / "lake"), Tensors(tmp_path / "tensors")


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """A copy of the embedded model's files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(ORGANISM_FOLDER / name, folder / name)
    return folder


def inputs_of(tiny: Materialized, copy: tuple[Lake, Tensors]) -> Inputs:
    return tiny.inputs(*copy)


def test_truncated_model_weights(tiny: Materialized, own_model: Path) -> None:
    weights = own_model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    file = own_model / "study.yaml"
    file.write_text(
        "study: own\ndescription: x\nmodel: {path: .}\n"
        "corpus: {format: structured, documents: 5}\nsae: {d_sae: 8, k: 2, training_tokens: 4096}\n"
    )
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged .* copy it again"):
        LanguageModelResource(root="models", compute=ComputeResource()).load(load_study(file))


def test_other_weights(tiny: Materialized, copy: tuple[Lake, Tensors], own_model: Path) -> None:
    tensors = load_file(own_model / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] * 1.001
    save_file(tensors, own_model / "model.safetensors", {"format": "pt"})
    with pytest.raises(StaleInputError, match=r"weights_hash .* materialize language_model"):
        inputs_of(tiny, copy).model(LanguageModel.load(own_model))


def test_other_tokenizer(tiny: Materialized, copy: tuple[Lake, Tensors], own_model: Path) -> None:
    tokenizer = json.loads((own_model / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    (own_model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(StaleInputError, match=r"tokenizer_hash .* materialize language_model"):
        inputs_of(tiny, copy).model(LanguageModel.load(own_model))


def test_sae_of_another_width(
    tiny: Materialized, copy: tuple[Lake, Tensors], organism: LanguageModel
) -> None:
    _, tensors = copy
    artefact = tensors.open("attention_sae", "tiny.L02")
    sae, metadata = load_sae(artefact.path), read_metadata(artefact.path)
    narrow = type(sae)(
        sae.W_enc[:-8].contiguous(), sae.b_enc, sae.W_dec[:, :-8].contiguous(), sae.b_dec[:-8], k=8
    )
    with (
        pytest.raises(SaeError, match="d_in"),
        tensors.writer("attention_sae", "tiny.L02", PROVENANCE) as writer,
    ):
        save_sae(writer.folder, narrow, metadata)
    assert len(tensors.versions("attention_sae", "tiny.L02")) == 1


def test_sae_of_another_model(
    tiny: Materialized, copy: tuple[Lake, Tensors], organism: LanguageModel
) -> None:
    lake, tensors = copy
    path = tensors.open("attention_sae", "tiny.L02").path
    config = json.loads((path / "cfg.json").read_text())
    text = json.dumps(config).replace(organism.weights_hash, "0" * 16)
    sae_files = {p.name: p.read_bytes() for p in path.iterdir() if p.name != "manifest.json"}
    with tensors.writer("attention_sae", "tiny.L02", PROVENANCE) as writer:
        for name, content in sae_files.items():
            writer.add_bytes(name, text.encode() if name == "cfg.json" else content)
    # The table describes the version before: whatever lies beside it is not read.
    assert read_sae(inputs_of(tiny, (lake, tensors)), "tiny.L02", organism).d_sae == 128
    spec = lake.declared.tables["attention_sae"].science_columns
    row = lake.read("attention_sae", "tiny.L02").select(c.name for c in spec).collect()
    describes = {"made:attention_sae/tiny.L02": writer.published.data_version}
    lake.write("attention_sae", "tiny.L02", row, PROVENANCE, describes)
    with pytest.raises(SaeError, match="0000000000000000"):
        read_sae(inputs_of(tiny, (lake, tensors)), "tiny.L02", organism)


def test_an_sae_that_its_table_does_not_describe(
    tiny: Materialized, copy: tuple[Lake, Tensors], organism: LanguageModel
) -> None:
    _, tensors = copy
    path = tensors.open("attention_sae", "tiny.L02").path
    with tensors.writer("attention_sae", "tiny.L02", PROVENANCE) as writer:
        for file in path.iterdir():
            if file.name != "manifest.json":
                writer.add_bytes(file.name, file.read_bytes() + b" " * (file.name == "cfg.json"))
    shutil.rmtree(path)
    with pytest.raises(StaleInputError, match="no longer stored as its table describes it"):
        read_sae(inputs_of(tiny, copy), "tiny.L02", organism)


def test_truncated_sae_and_cache_files(
    tiny: Materialized, copy: tuple[Lake, Tensors], organism: LanguageModel
) -> None:
    _, tensors = copy
    for kind, name in (
        ("attention_sae", "sae_weights.safetensors"),
        ("activation_cache", "shard-00000.safetensors"),
    ):
        file = tensors.open(kind, "tiny.L02").path / name
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ArtefactError, match=name):
            tensors.open(kind, "tiny.L02")


def test_stale_cache(tiny: Materialized, copy: tuple[Lake, Tensors]) -> None:
    lake, _tensors = copy
    spec = [column.name for column in lake.declared.tables["tokenized_corpus"].science_columns]
    shorter = lake.read("tokenized_corpus", "tiny").select(spec).collect().head(500)
    lake.write("tokenized_corpus", "tiny", shorter, PROVENANCE)
    with pytest.raises(
        StaleInputError,
        match=r"activation_cache of tiny\.L02 was made from tokenized_corpus/tiny .* materialize",
    ):
        inputs_of(tiny, copy).artefact("activation_cache", "tiny.L02")
    stale = lake.sql("SELECT DISTINCT table_name FROM stale_partitions WHERE study = 'tiny'")
    assert {"activation_cache", "attention_sae", "head_scores"} <= set(stale["table_name"])
    assert "ioi_prompts" not in set(stale["table_name"])


def test_changed_formula_makes_exactly_its_rows_stale(tiny: Materialized, tmp_path: Path) -> None:
    from mechinterp_assets.storage.declarations import SQL_FOLDER

    sql = tmp_path / "sql"
    shutil.copytree(SQL_FOLDER, sql)
    file = sql / "tables" / "head_scores.sql"
    current = tiny.lake.declared.tables["head_scores"].formula_version
    text = file.read_text().replace(f"-- formula: {current}", f"-- formula: {current + 1}")
    file.write_text(text)
    shutil.copytree(tiny.home / "lake", tmp_path / "lake", symlinks=True)
    changed = Lake(tmp_path / "lake", sql=sql)
    changed.refresh()
    stale = "SELECT DISTINCT table_name, cause FROM stale_partitions WHERE study = 'tiny'"
    rows = changed.sql(stale).rows()
    assert rows == [("head_scores", "formula")]


def test_sae_too_large_for_memory(tmp_path: Path) -> None:
    compute = ComputeResource(device="cpu")
    with pytest.raises(ComputeError, match=r"needs .* GiB but .* GiB are available .* lower d_sae"):
        compute.require_memory(1 << 60, "an SAE", "d_sae")


def test_memory_is_refused_before_training(
    tiny: Materialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechinterp_assets.orchestration import shape

    huge = tiny.study.model_copy(
        update={"sae": tiny.study.sae.model_copy(update={"d_sae": 1 << 34})}
    )
    monkeypatch.setitem(shape.STUDIES, "tiny", huge)
    before = tiny.lake.current("attention_sae", "tiny.L02").version
    result = tiny.run(["attention_sae"], partition="tiny.L02", raise_on_error=False)
    assert not result.success
    message = str(result.filter_events(lambda e: e.is_step_failure)[0].step_failure_data.error)
    assert "sae.d_sae" in message
    assert "lower" in message
    assert tiny.lake.current("attention_sae", "tiny.L02").version == before


def test_failed_check_stops_what_lies_downstream(
    tiny: Materialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechinterp_assets.defs import checks

    strict = tiny.study.model_copy(
        update={"checks": tiny.study.checks.model_copy(update={"ioi_accuracy_min": 1.01})}
    )
    monkeypatch.setitem(checks.STUDIES, "tiny", strict)
    before = tiny.lake.current("trace_edges", "tiny").version
    result = tiny.run(["ioi_baseline", "trace_edges"], partition="tiny", raise_on_error=False)
    assert not result.success
    failed = [c for c in result.get_asset_check_evaluations() if not c.passed]
    assert [check.check_name for check in failed] == ["ioi_accuracy"]
    assert tiny.lake.current("trace_edges", "tiny").version == before
    assert failed[0].partition == "tiny"
    assert "least 1.01" in (failed[0].description or "")
    assert failed[0].metadata["breaches"].value == 1
    assert "SET VARIABLE" in str(failed[0].metadata["sql"].value)


def test_nan_in_weights_is_not_cached(tiny: Materialized, own_model: Path) -> None:
    from mechinterp_assets.activations.cache import ActivationCacheError, write_shards

    model = LanguageModel.load(ORGANISM_FOLDER)
    model.output_projection(0)
    next(iter(model.hf.parameters())).fill_(float("nan"))
    folder = own_model / "cache"
    with pytest.raises(ActivationCacheError, match="not finite"):
        write_shards(model, torch.ones(2, 8, dtype=torch.int64), {0: folder})
    with pytest.raises(Exception, match="cache"):
        ActivationReader(folder)
