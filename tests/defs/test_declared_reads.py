"""What assets declare to read is what they read: no more (refused), no less (tested here)."""

import pytest

from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.orchestration.reads import SEEN, UndeclaredReadError
from mechinterp_assets.orchestration.shape import SHAPES
from mechinterp_assets.reproduction.measures import tables_read
from mechinterp_assets.staleness.study_files import FILES
from mechinterp_assets.studies.study import Study
from tests.defs.conftest import Materialized

# Read under other settings than those of the tiny study: which.
ELSEWHERE = {
    ("sae_matching", "activation_cache"): "to find the corpus of an SAE of another study",
    ("sae_matching", "tokenized_corpus"): "the same",
    ("circuit_quality", "task_prompts"): "circuits.tasks beside ioi",
    ("subspace_patching", "task_prompts"): "circuits.tasks beside ioi",
    ("qk_features", "task_prompts"): "qk_features.task other than ioi",
    **{("reproduction", table): "references of other studies" for table in tables_read()},
}


def test_every_declared_read_is_used(tiny: Materialized) -> None:
    unused = {
        (shape.name, read.table)
        for shape in SHAPES.values()
        for read in shape.reads
        if read.table not in SEEN.get(shape.name, set())
    }
    assert unused <= ELSEWHERE.keys()


# Used under other settings than those of the tiny study: which.
OTHER_SETTINGS = {
    ("attention_sae", "activations.batch_size"): "sae.source: forward",
    ("sae_frontier", "activations.batch_size"): "sae.source: forward",
    ("attention_sae", "activations.exclude_norm_above"): "sae.source: forward",
    ("sae_frontier", "activations.exclude_norm_above"): "sae.source: forward",
    ("ioi_prompts", "ioi.chat_request"): "ioi.chat_template",
    ("task_baseline", "ioi.chat_request"): "ioi.chat_template",
    ("qk_features", "residual_sae"): "qk_features.residual_sae",
    ("task_effects", "tasks.names"): "task_effects.tasks: auto",
    ("task_effects", "tasks.own"): "task_effects.tasks: auto",
}


def test_every_declared_setting_is_used(tiny: Materialized) -> None:
    """The keys that were used are stored with each version; a section counts by any of its own."""
    unused = set()
    for shape in SHAPES.values():
        partition = tiny.study.study if shape.per == "study" else tiny.study.sites[-1]
        recorded = tiny.lake.inputs(shape.tables[0], partition)
        used = {key.removeprefix("settings:") for key in recorded if key.startswith("settings:")}
        sections = {path.partition(".")[0] for path in used}
        undeclared = {
            path
            for path in used - {"layers"}
            if path not in shape.settings and path.partition(".")[0] not in shape.settings
        }
        assert not undeclared, shape.name
        unused |= {
            (shape.name, path)
            for path in shape.settings
            if path not in used and path not in sections
        }
    assert unused <= OTHER_SETTINGS.keys()


def test_an_undeclared_table_is_refused(tiny: Materialized) -> None:
    settings = DeclaredSettings(tiny.study, [], "head_scores")
    inputs = Inputs(tiny.lake, tiny.tensors, settings, ["head_scores"], "head_scores")
    with pytest.raises(UndeclaredReadError, match="reads vocabulary without saying so; add it"):
        inputs.table("vocabulary", "tiny")
    with pytest.raises(UndeclaredReadError, match="reads ioi_head_scores without saying so"):
        inputs.sql("SELECT * FROM head_roles WHERE study = $study", {"study": "tiny"})


def test_an_undeclared_setting_is_refused(tiny: Materialized) -> None:
    guard = DeclaredSettings(tiny.study, ["sae.seed"], "head_scores")
    study = guard.study
    assert study.sae.seed == tiny.study.sae.seed
    assert study.sites == tiny.study.sites
    with pytest.raises(UndeclaredReadError, match=r"uses the setting 'sae\.k' without saying so"):
        _ = study.sae.k
    with pytest.raises(UndeclaredReadError, match="uses the setting 'heads' without saying so"):
        _ = study.heads
    assert guard.used == {"settings:sae.seed": "0", "settings:layers": "[0, 2]"}


def test_declared_settings_exist() -> None:
    for shape in SHAPES.values():
        for path in shape.settings:
            section, _, key = path.partition(".")
            kind = Study.model_fields[section].annotation
            assert not key or key in getattr(kind, "model_fields", {}), (shape.name, path)
        assert set(shape.files) <= FILES.keys(), shape.name
