"""Study files: what loads, and what each mistake is answered with."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.study import PACKAGED_STUDIES, Study, StudyError, load_registry, load_study

VALID: dict[str, Any] = {
    "study": "mine",
    "description": "a test study",
    "model": {"embedded": "organism"},
    "corpus": {"format": "structured", "documents": 10},
    "sae": {"d_sae": 64, "training_tokens": 1000},
}


def write(folder: Path, change: dict[str, Any] | None = None, name: str = "mine.yaml") -> Path:
    """A study file: VALID with `change` merged into its sections."""
    data = {**VALID}
    for key, value in (change or {}).items():
        old = data.get(key)
        data[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    file = folder / name
    file.write_text(yaml.safe_dump(data))
    return file


def test_shipped_studies_load() -> None:
    studies = load_registry(sorted(PACKAGED_STUDIES.glob("*.yaml")))
    assert set(studies) == {"organism", "gpt2-small"}
    assert studies["gpt2-small"].sites[:2] == ["gpt2-small.L00", "gpt2-small.L01"]
    assert len(studies["gpt2-small"].sites) == 12
    assert len(studies["organism"].sites) == studies["organism"].n_layers


def test_example_study_loads_with_its_relative_path() -> None:
    folder = Path(__file__).parent.parent / "examples" / "own-text"
    study = load_study(folder / "own-text.yaml")
    assert study.corpus.path == folder / "texts"


def test_chosen_layers_become_the_sites(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, {"activations": {"layers": [2, 0]}}))
    assert study.sites == ["mine.L00", "mine.L02"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sea": {}}, ["sea", "unknown key", "did you mean 'sae'"]),
        ({"sae": {"d_sea": 3}}, ["sae.d_sea", "did you mean 'd_sae'", "3"]),
        ({"sae": {"d_sae": -1}}, ["sae.d_sae", "greater than 0", "-1"]),
        ({"sae": {"k": 65}}, ["sae", "k=65", "lower k"]),
        ({"activations": {"layers": [99]}}, ["activations.layers", "layer 99", "has layers 0.."]),
        ({"ioi": {"roots": [[99, 0]]}}, ["ioi.roots", "layer 99"]),
        (
            {"model": {"embedded": None, "path": "nowhere"}},
            ["model.path", "nowhere", "does not exist"],
        ),
        (
            {"corpus": {"format": "parquet", "path": "gone.parquet"}},
            ["corpus.path", "gone.parquet", "does not exist"],
        ),
        ({"corpus": {"format": "parquet"}}, ["corpus", "needs path"]),
        ({"model": {"embedded": None, "hub": "gpt2"}}, ["model", "n_layers"]),
        ({"model": {"n_layers": 77}}, ["model.n_layers", "77", "correct it or leave it out"]),
        ({"ioi": {"variants": ["base", "CBA"]}}, ["ioi.variants", "base and any of", "CBA"]),
        ({"ioi": {"variants": ["base"]}}, ["add ABC to ioi.variants"]),
        (
            {"interventions": {"head_ablations": [], "edges": 0}},
            ["interventions", "nothing would run"],
        ),
        ({"study": "Not A Key"}, ["study", "lower-case", "Not A Key"]),
    ],
)
def test_mistakes_name_file_key_value_and_remedy(
    tmp_path: Path, change: dict[str, Any], expected: list[str]
) -> None:
    file = write(tmp_path, change)
    with pytest.raises(StudyError) as raised:
        load_study(file)
    message = str(raised.value)
    assert str(file) in message
    for part in expected:
        assert part in message


def test_missing_key_and_unreadable_yaml(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("study: x\n")
    with pytest.raises(StudyError, match=r"sae: required key is missing"):
        load_study(file)
    file.write_text("study: [")
    with pytest.raises(StudyError, match="not readable as YAML"):
        load_study(file)


def test_two_files_with_one_name_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path), write(tmp_path, name="other.yaml")]
    with pytest.raises(StudyError, match=r"'mine' is taken by .*mine\.yaml"):
        load_registry(files)


def test_studies_variable_adds_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setenv("MECHINTERP_STUDIES", str(tmp_path))
    assert "mine" in load_registry()
    monkeypatch.setenv("MECHINTERP_STUDIES", str(tmp_path / "gone"))
    with pytest.raises(StudyError, match="does not exist"):
        load_registry()


def test_local_folder_gives_the_layers(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, {"model": {"embedded": None, "path": str(ORGANISM_FOLDER)}}))
    embedded = load_study(write(tmp_path))
    assert study.n_layers == embedded.n_layers > 0


def test_fingerprint_follows_its_section_alone(tmp_path: Path) -> None:
    def fingerprints(study: Study) -> list[str]:
        return [study.fingerprint(section) for section in ("sae", "corpus")]

    before = fingerprints(load_study(write(tmp_path)))
    after = fingerprints(load_study(write(tmp_path, {"sae": {"d_sae": 65}})))
    assert before[0] != after[0]
    assert before[1] == after[1]
