"""Neuronpedia export: folder, schema, uniform keys, hostile text through the importer."""

import gzip
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hostile_layer
import polars as pl
import pytest
from hostile_layer import LAYER, N_HEADS, TOKENS
from pydantic import BaseModel, ValidationError

from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.dashboards.neuronpedia import (
    BATCH,
    Publication,
    export_layer,
    identifier,
    json_line,
)
from mechinterp_assets.dashboards.neuronpedia_lines import (
    ActivationLine,
    FeatureLine,
    ModelLine,
    ReleaseLine,
    SourceLine,
    SourceSetLine,
)

STRINGS = [token.encode("utf-8", "replace").decode() for token in TOKENS]
STRINGS[-1] = "\\u0000 \\\\u0000"  # a text that holds what the importer replaces
PUBLICATION = Publication(
    model_id="tiny-model",
    source_set="att-14",
    release="a-release",
    description='<script>alert("x")</script>',
    creator_id="someone",
    creator_name="Some One",
    created=datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
)
MODEL = {"d_model": 8, "n_layers": 4}
SAE = {"architecture": "standard", "d_sae": 14}
FILES: dict[str, type[BaseModel]] = {
    "release.jsonl": ReleaseLine,
    "model.jsonl": ModelLine,
    "sourceset.jsonl": SourceSetLine,
    "source.jsonl": SourceLine,
    "features/batch-0.jsonl.gz": FeatureLine,
    "activations/batch-0.jsonl.gz": ActivationLine,
}


@pytest.fixture(scope="module")
def sequences() -> pl.DataFrame:
    return hostile_layer.sequences()


@pytest.fixture(scope="module")
def frames(sequences: pl.DataFrame) -> LayerFrames:
    return hostile_layer.frames(sequences)


def export(frames: LayerFrames, sequences: pl.DataFrame, folder: Path) -> Path:
    return export_layer(
        frames,
        folder,
        PUBLICATION,
        layer=LAYER,
        model=MODEL,
        sae=SAE,
        sequences=sequences,
        token_strings=STRINGS,
        logit_histograms={0: ([1, 2], [-0.5, 0.5])},
        corpus="corpus",
    )


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, frames: LayerFrames, sequences: pl.DataFrame
) -> Path:
    return export(frames, sequences, tmp_path_factory.mktemp("neuronpedia"))


def imported(path: Path) -> list[dict[str, Any]]:
    """Lines as the importer reads them: NUL escapes replaced in the text, then split and parsed."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    text = text.replace("\\u0000", " ").strip()
    return [json.loads(line) for line in text.split("\n")]


def test_the_folder_has_the_files_of_a_bulk_import(folder: Path) -> None:
    assert folder.parts[-2:] == ("tiny-model", f"{LAYER}-att-14")
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(FILES)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]  # no temporary folder


@pytest.mark.parametrize("name", FILES)
def test_every_line_fits_its_schema_and_has_the_keys_of_the_first(folder: Path, name: str) -> None:
    lines = imported(folder / name)
    assert lines
    for line in lines:
        FILES[name].model_validate(line, strict=True)
        assert list(line) == list(lines[0]) == list(FILES[name].model_fields)


def test_metadata_names_each_other_in_the_order_of_import(folder: Path) -> None:
    release, model, source_set, source = (
        imported(folder / f"{name}.jsonl")[0]
        for name in ("release", "model", "sourceset", "source")
    )
    assert source_set["releaseName"] == release["name"]
    assert source_set["modelId"] == source["modelId"] == model["id"]
    assert source["setName"] == source_set["name"] == release["defaultSourceSetName"]
    assert source["id"] == f"{LAYER}-{source_set['name']}"
    assert source_set["showDfa"] is True
    assert source_set["showHeadAttribution"] is True
    assert release["createdAt"] == "2026-01-02T03:04:05.678Z"


def test_features_carry_what_their_tables_say(folder: Path, frames: LayerFrames) -> None:
    lines = {line["index"]: line for line in imported(folder / "features/batch-0.jsonl.gz")}
    assert set(lines) == {str(f) for f in frames.statistics["feature"]}
    for row in frames.statistics.iter_rows(named=True):
        line = lines[str(row["feature"])]
        assert line["layer"] == folder.name
        assert line["sourceSetName"] == "att-14"
        assert line["frac_nonzero"] == row["density"]
        assert line["maxActApprox"] == (row["max_activation"] or 0.0)
        assert sum(line["freq_hist_data_bar_heights"]) == row["n_active"]
    shares = frames.head_attribution.filter(pl.col("feature") == 0).sort("head")
    assert lines["0"]["decoder_weights_dist"] == shares["attribution"].to_list()
    assert len(lines["0"]["decoder_weights_dist"]) == N_HEADS
    assert lines["3"]["decoder_weights_dist"] == []  # a zero decoder row
    assert lines["0"]["logits_hist_data_bar_heights"] == [1, 2]
    assert lines["1"]["logits_hist_data_bar_heights"] == []
    top = frames.logit_effects.filter(pl.col("feature") == 0, pl.col("extreme") == "top")
    assert lines["0"]["pos_values"] == top.sort("rank")["logit_effect"].to_list()
    assert lines["0"]["pos_values"] == sorted(lines["0"]["pos_values"], reverse=True)
    assert lines["0"]["neg_values"] == sorted(lines["0"]["neg_values"])
    assert frames.neighbours is not None
    near = frames.neighbours.filter(pl.col("feature") == 0, pl.col("measure") == "decoder_cosine")
    assert lines["0"]["topkCosSimIndices"] == near.sort("rank")["neighbour"].to_list()


def test_activations_align_tokens_values_and_attribution(
    folder: Path, frames: LayerFrames, sequences: pl.DataFrame
) -> None:
    lines = imported(folder / "activations/batch-0.jsonl.gz")
    assert len({line["id"] for line in lines}) == len(lines)
    ids = dict(sequences.iter_rows())
    assert frames.activations is not None
    known = {
        (feature, sequence, position): activation
        for feature, sequence, position, activation in frames.activations.iter_rows()
    }
    readable = [token.replace("\x00", "␀") for token in STRINGS]
    for line in lines:
        feature, sequence = int(line["index"]), int(line["dataIndex"])
        assert line["tokens"] == [readable[i] for i in ids[sequence]]
        expected = [known.get((feature, sequence, i), 0.0) for i in range(len(line["tokens"]))]
        assert line["values"] == pytest.approx(expected, rel=1e-5)
        assert line["maxValue"] == pytest.approx(max(expected), rel=1e-5)
    top = frames.top_examples.filter(pl.col("feature") == 6).sort("rank").to_dicts()
    dfa = frames.dfa.filter(pl.col("feature") == 6).sort("rank").to_dicts()
    shown = [line for line in lines if line["index"] == "6" and line["binContains"] == -1]
    assert len(shown) == len(top)
    for line, row in zip(shown, top, strict=True):
        assert (line["binMin"], line["qualifyingTokenIndex"]) == (-1, row["position"])
        assert line["maxValueTokenIndex"] == row["position"]  # its sequence's strongest
    for line, row in zip(shown, dfa, strict=False):
        by_source = row["dfa_by_source"]
        assert line["dfaTargetIndex"] == row["position"]
        assert line["dfaValues"][: len(by_source)] == pytest.approx(by_source, rel=1e-5)
        assert not any(line["dfaValues"][len(by_source) :])
        assert line["dfaMaxValue"] == max(line["dfaValues"])
    assert shown[len(dfa)]["dfaValues"] == []
    assert shown[len(dfa)]["dfaTargetIndex"] is None


def test_interval_examples_name_their_interval(folder: Path, frames: LayerFrames) -> None:
    intervals = {
        (row["feature"], row["low"]): row for row in frames.intervals.iter_rows(named=True)
    }
    lines = imported(folder / "activations/batch-0.jsonl.gz")
    inside = [line for line in lines if line["binContains"] != -1]
    assert inside
    for line in inside:
        row = intervals[int(line["index"]), line["binMin"]]
        assert (line["binMax"], line["binContains"]) == (row["high"], row["active_share"])
        value = line["values"][line["qualifyingTokenIndex"]]
        assert row["low"] * (1 - 1e-5) < value <= row["high"] * (1 + 1e-5)


def test_hostile_text_is_plain_json_that_survives_the_importer(folder: Path) -> None:
    for name in FILES:
        content = (folder / name).read_bytes()
        text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
        assert text.isascii()
        assert "\\u0000" not in text
        assert not re.search(r"\\\\", text)
        assert "NaN" not in text
    tokens = {
        token
        for line in imported(folder / "activations/batch-0.jsonl.gz")
        for token in line["tokens"]
    }
    for token in STRINGS:
        assert token.replace("\x00", "␀") in tokens


@pytest.mark.parametrize("text", ["\\", "\\\\", '\\"', "\\n\n", "\\u0000", "\\\\u0000\\", "a\tb"])
def test_backslashes_come_back(text: str) -> None:
    class Line(BaseModel):
        text: str

    written = json_line(Line(text=text))
    assert json.loads(written.replace("\\u0000", " ")) == {"text": text}


def test_the_same_tables_give_the_same_bytes(
    tmp_path: Path, folder: Path, frames: LayerFrames, sequences: pl.DataFrame
) -> None:
    again = export(frames, sequences, tmp_path)
    for name in FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_features_are_split_into_files(
    tmp_path: Path, frames: LayerFrames, sequences: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BATCH > 14
    monkeypatch.setattr("mechinterp_assets.dashboards.neuronpedia.BATCH", 5)
    made = export(frames, sequences, tmp_path)
    lines = [imported(made / f"features/batch-{i}.jsonl.gz") for i in range(3)]
    assert [len(part) for part in lines] == [5, 5, 4]


# ---- refusals ------------------------------------------------------------------------------------


def test_a_folder_that_is_there_is_not_touched(
    folder: Path, frames: LayerFrames, sequences: pl.DataFrame
) -> None:
    with pytest.raises(ValueError, match="exists; remove it or name another folder"):
        export(frames, sequences, folder.parent.parent)


def test_a_failed_export_leaves_nothing(
    tmp_path: Path, frames: LayerFrames, sequences: pl.DataFrame
) -> None:
    assert frames.activations is not None
    with pytest.raises(ValueError, match="pass feature_activations of the examples"):
        export(replace(frames, activations=frames.activations.head(0)), sequences, tmp_path)
    assert list((tmp_path / "tiny-model").iterdir()) == []


def test_lines_that_contradict_themselves_are_refused(folder: Path) -> None:
    line = imported(folder / "activations/batch-0.jsonl.gz")[0]
    for change in (
        {"values": line["values"][1:]},
        {"maxValueTokenIndex": len(line["tokens"]) - 1, "maxValue": -1.0},
        {"dfaTargetIndex": None},
        {"tokens": ["\x00", *line["tokens"][1:]]},
        {"unknown": 1},
    ):
        with pytest.raises(ValidationError):
            ActivationLine.model_validate({**line, **change})


def test_ids_have_only_letters_that_are_allowed() -> None:
    assert identifier("EleutherAI/pythia-70m v1.0") == "eleutherai-pythia-70m-v1-0"
    assert identifier("///") == "unnamed"
