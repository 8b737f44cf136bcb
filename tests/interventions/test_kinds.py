"""A kind is one file: found, parsed, swept, run and tabled without being named anywhere else."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import mechinterp_assets.interventions.kinds as kinds_folder
from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.descriptions import expand
from mechinterp_assets.interventions.kind_fields import kind_fields
from mechinterp_assets.interventions.kinds import known_kinds
from mechinterp_assets.interventions.sets import parse_planned
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.storage.declarations import polars_schema, table_spec

NEGATE = '''
from typing import Literal

from mechinterp_assets.interventions.spec import Intervention, Site
from mechinterp_assets.interventions.terms import Index


class Negate(Intervention):
    """z of `head` of `layer` times -strength."""

    kind: Literal["negation"] = "negation"
    head: Index
    strength: float = 1.0

    @property
    def edited_site(self):
        return "z"

    @property
    def label(self):
        return f"negate:L{self.layer}H{self.head}:{self.position_role}:{self.strength:g}"

    @property
    def sites(self):
        return (Site(what="z", layer=self.layer, head=self.head, role=self.position_role),)

    def plan(self, runs, context):
        import torch

        from mechinterp_assets.interventions.sites import Places, Scale, edit_of

        run = runs.of(None, self.view)
        factor = torch.full((context.model.config.d_head,), -self.strength)
        places = Places.of(run.group, self.position_role)
        step = Scale("z", self.layer, self.head, places, factor)
        return edit_of(run, step, context.model.weights)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose files are kinds too."""
    monkeypatch.setattr(kinds_folder, "__path__", [*kinds_folder.__path__, str(tmp_path)])
    before = set(sys.modules)
    yield tmp_path
    kinds_folder._class_of.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith(kinds_folder.__name__):
            del sys.modules[name]


def test_shipped_kinds_are_named_as_their_files() -> None:
    assert set(known_kinds()) == {
        "activation_patching",
        "edge",
        "head_ablation",
        "head_scaling",
        "layer_ablation",
        "path_patching",
        "sae_error_path",
        "sae_feature_ablation",
        "sae_feature_path",
        "sae_splice",
        "steering",
    }
    for name, kind in known_kinds().items():
        assert kind.__module__.rpartition(".")[2] == name
        assert kind.__doc__


def test_a_new_kind_is_one_file(folder: Path, organism: LanguageModel, base: pl.DataFrame) -> None:
    """Negating equals scaling by -1, and its own field may be swept and stands in the table."""
    (folder / "negation.py").write_text(NEGATE)
    given = {"kind": "negation", "layer": 1, "head": "all", "strength": [1, 2.5]}
    assert len(expand([given], organism.config)) == 2 * organism.config.n_heads
    frame = run(organism, base, [{**given, "head": [0, 3]}])
    scaled = {"kind": "head_scaling", "layer": 1, "head": [0, 3], "alpha": [-1, -2.5]}
    expected = run(organism, base, [scaled])
    assert frame["patched"].equals(expected["patched"])
    assert frame.schema == polars_schema(table_spec("intervention_results"))
    assert {json.loads(text)["strength"] for text in frame["other_fields"]} == {1.0, 2.5}
    assert expected["other_fields"].null_count() == expected.height
    members = [{**given, "head": 0, "strength": 1}, {"kind": "sae_splice", "layer": 0}]
    with pytest.raises(InterventionError, match="members of set 'x' differ in weights"):
        parse_planned({"name": "x", "members": members})
    fields = kind_fields().filter(kind="negation")
    assert fields.filter(field="strength").row(0, named=True)["default"] == "1.0"
    assert fields["edit"].unique().to_list() == ["z of `head` of `layer` times -strength."]


def test_a_file_without_its_kind_is_refused(folder: Path) -> None:
    (folder / "negated.py").write_text(NEGATE)
    with pytest.raises(InterventionError, match=r"negated\.py: 0 classes .* kind 'negated'"):
        known_kinds()


def test_descriptions_and_published_names_are_checked_without_torch() -> None:
    program = """
import sys
from mechinterp_assets.interventions.descriptions import expand
from mechinterp_assets.interventions.kind_fields import kind_fields
from mechinterp_assets.interventions.kinds import known_kinds
from mechinterp_assets.interventions.published import published_experiments

assert len(known_kinds()) >= 10
assert expand([{"kind": "sae_splice", "layer": [0, 1]}])[1].id == "splice:sae:L1:all"
assert len(published_experiments("all")) == 9
assert kind_fields().height > 40
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"torch", "transformers", "transformer_lens"}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
