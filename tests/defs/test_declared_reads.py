"""What assets declare to read is what they read: no more (refused), no less (tested here)."""

import pytest

from mechinterp_assets.orchestration.declared_settings import DeclaredSettings
from mechinterp_assets.orchestration.inputs import Inputs
from mechinterp_assets.orchestration.reads import SEEN, UndeclaredReadError
from mechinterp_assets.orchestration.shape import SHAPES
from tests.defs.conftest import Materialized

# Read by other settings than those of the tiny study: which, and where that is tested.
ELSEWHERE = {
    ("sae_matching", "activation_cache"): "only to find the corpus of an SAE of another study",
    ("sae_matching", "tokenized_corpus"): "the same",
}


def test_every_declared_read_is_used(tiny: Materialized) -> None:
    unused = {
        (shape.name, read.table)
        for shape in SHAPES.values()
        for read in shape.reads
        if read.table not in SEEN.get(shape.name, set())
    }
    assert unused <= ELSEWHERE.keys()


def test_every_declared_setting_is_used(tiny: Materialized) -> None:
    """What was used is stored with each version; a section counts by any of its keys."""
    lake = tiny.lake
    for shape in SHAPES.values():
        partition = tiny.study.study if shape.per == "study" else tiny.study.sites[-1]
        recorded = lake.inputs(shape.tables[0], partition)
        used = {key.removeprefix("settings:") for key in recorded if key.startswith("settings:")}
        assert used <= set(shape.settings), shape.name


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
    assert guard.used == {"sae.seed": str(tiny.study.sae.seed)}
