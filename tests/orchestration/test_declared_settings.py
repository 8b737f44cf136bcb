"""What a result remembers of settings: the keys that its asset looked at, through every door."""

from pathlib import Path

import pytest

from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
from mechinterp_assets.orchestration.reads import UndeclaredReadError
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.studies.study import Study
from mechinterp_assets.studies.study_file import load_study

STUDY = Path(__file__).resolve().parents[1] / "studies" / "tiny.yaml"


@pytest.fixture
def study() -> Study:
    return load_study(STUDY)


def keys(guard: DeclaredSettings) -> set[str]:
    return {name.removeprefix("settings:") for name in guard.used}


def test_keys_are_noted_as_they_are_looked_at(study: Study) -> None:
    guard = DeclaredSettings(study, ["sae"], "an asset")
    sae = guard.study.sae
    assert guard.used == {}
    assert (sae.k, sae.seed) == (study.sae.k, study.sae.seed)
    assert guard.used == {"settings:sae.k": "8", "settings:sae.seed": "0"}


def test_properties_and_methods_look_through_the_guard(study: Study) -> None:
    guard = DeclaredSettings(study, ["sae"], "an asset")
    assert guard.study.sae.steps == study.sae.steps
    assert keys(guard) == {"sae.training_tokens", "sae.batch_size"}
    model = DeclaredSettings(study, ["model"], "an asset")
    assert model.study.model.source == study.model.source
    assert keys(model) == {"model.embedded", "model.gguf"}


def test_a_copy_has_looked_at_all_that_changes_results(study: Study) -> None:
    guard = DeclaredSettings(study, ["sae"], "an asset")
    one = guard.study.sae.for_layer(2)
    assert one == study.sae.for_layer(2)
    assert type(one) is SaeSettings
    every = {f"sae.{name}" for name in SaeSettings.model_fields}
    apart = {f"sae.{name}" for name in SaeSettings.READ_ALONE}
    assert keys(guard) == every - apart


def test_a_dump_has_looked_at_what_is_in_it(study: Study) -> None:
    guard = DeclaredSettings(study, ["heads"], "an asset")
    left_out = set(type(study.heads).model_fields) - {"sequences", "repeat_length"}
    found = guard.study.heads.model_dump(exclude=left_out)
    assert found == {"sequences": 8, "repeat_length": 20}
    assert keys(guard) == {"heads.sequences", "heads.repeat_length"}


def test_a_guard_passes_for_its_section(study: Study) -> None:
    guard = DeclaredSettings(study, ["sae"], "an asset")
    assert isinstance(guard.study.sae, SaeSettings)


def test_methods_may_look_at_declared_keys_alone(study: Study) -> None:
    guard = DeclaredSettings(study, ["sae.batch_size"], "an asset")
    with pytest.raises(UndeclaredReadError, match=r"'sae\.training_tokens' without saying so"):
        _ = guard.study.sae.steps


def test_layers_are_a_setting(study: Study) -> None:
    guard = DeclaredSettings(study, [], "an asset")
    assert guard.study.layers == [0, 2]
    assert guard.used == {"settings:layers": "[0, 2]"}


def test_paths_count_by_name(study: Study, tmp_path: Path) -> None:
    moved = study.model_copy(update={"labels": [tmp_path / study.labels[0].name]})
    used = []
    for one in (study, moved):
        guard = DeclaredSettings(one, ["labels"], "an asset")
        _ = guard.study.labels
        used.append(guard.used)
    assert used[0] == used[1] == {"settings:labels": f'["{study.labels[0].name}"]'}
