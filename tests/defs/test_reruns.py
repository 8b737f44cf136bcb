"""A change reruns exactly what it touches: edits of a copy of the tiny study, and what runs."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import torch
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.storage.tags import RESUME_RETRY_TAG

from mechinterp_assets.app.kept_prompts import keep_prompt
from mechinterp_assets.app.materialize import BlockedError, Materializer, StudyFailedError
from mechinterp_assets.app.plan_lines import plan_lines
from mechinterp_assets.definitions import build_definitions
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.automation import wanted
from mechinterp_assets.orchestration.plan import Unit
from mechinterp_assets.orchestration.reconciling import report_published
from mechinterp_assets.orchestration.registry import STUDIES
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.resources.lake import LakeResource
from mechinterp_assets.resources.tensors import TensorsResource
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.observations import Begun
from mechinterp_assets.studies.study import Study
from tests.defs.conftest import Materialized
from tests.foreign_sae import write_residual

TREES = "prompt_attributions"
SITES = ["tiny.L00", "tiny.L02"]


@dataclass
class Home:
    """A finished study that a test may change."""

    lake: Lake
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    patch: pytest.MonkeyPatch

    @property
    def study(self) -> Study:
        return STUDIES["tiny"]

    def edit(self, **changed: Any) -> None:
        """Change the study file: sections by name, with the keys that change."""
        updates: dict[str, Any] = {}
        for name, value in changed.items():
            section = getattr(self.study, name)
            updates[name] = section.with_changes(**value) if isinstance(value, dict) else value
        self.patch.setitem(STUDIES, "tiny", self.study.model_copy(update=updates))

    def work(self, **options: Any) -> Materializer:
        return Materializer(self.definitions, self.study, self.lake, self.instance, **options)

    def why(self) -> dict[str, set[str]]:
        """What is to be made: step -> reasons in words."""
        found: dict[str, set[str]] = {}
        for unit, reasons in self.work().pending().items():
            found.setdefault(unit.step, set()).update(reason.words for reason in reasons)
        return found

    def make(self, **options: Any) -> list[Unit]:
        """Materialize; what was made, in order."""
        work = self.work(**options)
        made = []
        for result in work.run_all():
            tables = [(m.asset_key.path[-1], m.partition) for m in result.materializations]
            made += dict.fromkeys(work.graph.unit_of(place) for place in tables)
        return made


@pytest.fixture
def home(tiny: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    for name in ("lake", "tensors", "dashboards"):
        shutil.copytree(tiny.home / name, tmp_path / name, symlinks=True)
    resources = {
        "lake": LakeResource(root=str(tmp_path / "lake")),
        "tensors": TensorsResource(root=str(tmp_path / "tensors")),
        "dashboards": DashboardsResource(root=str(tmp_path / "dashboards")),
    }
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        lake = Lake(tmp_path / "lake")
        yield Home(lake, build_definitions(resources), instance, monkeypatch)


def test_nothing_to_do(home: Home) -> None:
    assert home.why() == {}
    assert home.make() == []
    graph = home.work().graph
    current = home.lake.current_of(home.lake.declared.tables)
    made = {graph.unit_of((version.table, version.partition)) for version in current}
    lines = list(plan_lines(graph, home.work().pending()))
    assert lines == [f"study tiny: all {len(made)} partitions are up to date"]


def test_a_setting_says_which_key_and_reruns_its_readers(home: Home) -> None:
    home.edit(sweep={"training_tokens": 10_000})
    assert home.why() == {"sae_frontier": {"sweep.training_tokens: 20000 -> 10000"}}
    assert home.make() == [Unit("sae_frontier", key) for key in SITES]
    assert home.why() == {}


def test_a_key_that_changes_no_result_reruns_nothing(home: Home) -> None:
    home.edit(sae={"checkpoint_every": 7})
    assert home.why() == {}


def test_a_setting_that_was_put_back_is_no_change(home: Home) -> None:
    before = home.study.sae.evaluation_tokens
    home.edit(sae={"evaluation_tokens": 2048})
    assert home.why() == {"sae_evaluation": {"sae.evaluation_tokens: 4096 -> 2048"}}
    home.edit(sae={"evaluation_tokens": before})
    assert home.why() == {}


def test_a_label_reruns_labels_and_the_pages_that_show_it(home: Home, tmp_path: Path) -> None:
    (old,) = home.study.labels
    moved = tmp_path / "labels" / old.name
    moved.parent.mkdir()
    shutil.copy(old, moved)
    home.edit(labels=[moved])
    assert home.why() == {}, "a file that was moved is the same file"
    rows = moved.read_text().splitlines(keepends=True)
    moved.write_text("".join(rows[:-1]))
    assert home.why() == {"feature_labels": {f"file labels/{old.name} changed"}}
    made = home.make()
    assert made[0] == Unit("feature_labels", "tiny")
    assert {unit.step for unit in made[1:]} <= {
        *("feature_dashboards", "head_dashboards", "study_dashboards", "reproduction")
    }
    assert home.why() == {}
    moved.unlink()
    assert home.why() == {"feature_labels": {f"file labels/{old.name} is gone"}}


def test_a_rerun_with_the_same_result_ends_there(home: Home) -> None:
    before = home.lake.current("ioi_prompts", "tiny")
    made = home.make(only=["ioi_prompts"], everything=True)
    assert made == [Unit("ioi_prompts", "tiny")]
    after = home.lake.current("ioi_prompts", "tiny")
    assert (after.version, after.data_version) == (before.version + 1, before.data_version)
    assert home.why() == {}


def test_a_selection_makes_what_it_needs_and_no_more(home: Home) -> None:
    home.edit(sae={"evaluation_tokens": 2048}, sweep={"training_tokens": 10_000})
    assert {unit.step for unit in home.work(only=["sae_evaluation"]).pending()} == {
        "sae_evaluation"
    }
    assert {unit.step for unit in home.work(only=["saes"]).pending()} == {
        *("sae_evaluation", "sae_frontier")
    }
    with pytest.raises(ValueError, match=r"no group or table 'sea_evaluation'; perhaps sae_eval"):
        home.work(only=["sea_evaluation"])


def test_what_a_killed_run_left_is_finished(home: Home) -> None:
    home.lake.begin([Begun("sae_evaluation", "tiny.L02", "tiny", "0" * 36, 1.0)])
    assert home.why() == {"sae_evaluation": {"begun by run 00000000 and not published"}}
    assert home.make() == [Unit("sae_evaluation", "tiny.L02")]
    assert home.why() == {}


def test_dagster_and_the_lake_agree_after_a_failure(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at the second layer; the first is in both, and going on makes the second alone."""
    from mechinterp_assets.sae import sweep

    home.edit(sweep={"training_tokens": 10_000})
    rows = sweep.frontier_rows

    def fail_at_the_second(layer: int, *others: Any) -> pl.DataFrame:
        if layer == 2:
            raise RuntimeError("out of memory at the second layer")
        return rows(layer, *others)

    monkeypatch.setattr(sweep, "frontier_rows", fail_at_the_second)
    before = {key: home.lake.current("sae_frontier", key).version for key in SITES}
    with pytest.raises(StudyFailedError, match="out of memory at the second layer"):
        home.make()
    (failed,) = home.instance.get_runs(limit=1)
    after = {key: home.lake.current("sae_frontier", key).version for key in SITES}
    assert after == {SITES[0]: before[SITES[0]] + 1, SITES[1]: before[SITES[1]]}
    assert published(home, failed.run_id) == [SITES[0]]
    assert not home.lake.begun(), "a failure is no interruption"
    assert list(home.work().pending()) == [Unit("sae_frontier", SITES[1])]

    job = home.definitions.resolve_implicit_global_asset_job_def()
    monkeypatch.undo()
    home.edit(sweep={"training_tokens": 10_000})
    again = home.instance.create_run_for_job(
        job_def=job,
        tags={**failed.tags, RESUME_RETRY_TAG: "true"},
        asset_selection=frozenset([dg.AssetKey("sae_frontier")]),
        parent_run_id=failed.run_id,
        root_run_id=failed.run_id,
    )
    events = list(execute_run_iterator(InMemoryJob(job), again, home.instance))
    assert not any(event.is_failure for event in events)
    assert published(home, again.run_id) == [SITES[1]]
    assert home.why() == {}


def test_what_was_published_before_a_kill_reaches_dagster(home: Home) -> None:
    """The copy's instance has no events: as if each run had died before it said anything."""
    version = home.lake.current("sae_evaluation", SITES[0])
    run_id = version.provenance.run_id
    assert report_published(home.instance, home.lake, ["another run"]) == 0
    n = report_published(home.instance, home.lake, [run_id])
    of_run = "SELECT count(*) FROM lineage WHERE run_id = ?"
    assert n == home.lake.sql(of_run, [run_id]).item()
    assert report_published(home.instance, home.lake, [run_id]) == 0, "once"
    records = home.instance.fetch_materializations(dg.AssetKey("sae_evaluation"), limit=9).records
    versions = {
        r.asset_materialization.partition: r.asset_materialization.tags
        for r in records
        if r.asset_materialization is not None
    }
    tags = versions[SITES[0]]
    assert tags is not None
    assert tags["dagster/data_version"] == version.data_version


def published(home: Home, run_id: str) -> list[str]:
    """Partitions of sae_frontier that Dagster has of a run, with the lake's data versions."""
    records = home.instance.fetch_materializations(dg.AssetKey("sae_frontier"), limit=100).records
    own = [one.asset_materialization for one in records if one.run_id == run_id]
    for event in own:
        assert event is not None
        assert event.partition is not None
        current = home.lake.current("sae_frontier", event.partition)
        assert (event.tags or {})["dagster/data_version"] == current.data_version
    return sorted(event.partition for event in own if event is not None and event.partition)


def test_nothing_is_made_from_what_failed_a_check(home: Home) -> None:
    home.edit(checks={"l0": [1000, 2000]}, features={"pages": 3}, automation=True)
    assert home.why().keys() == {"feature_dashboards"}
    told = r"check l0_in_bounds of sae_evaluation of tiny\.L00: .*(?s:.*)correct the bounds"
    with pytest.raises(BlockedError, match=told):
        home.make()
    assert home.why().keys() == {"feature_dashboards"}
    assert not wanted(home.lake, home.instance, STUDIES).ready
    home.edit(checks={"l0": [0, 2000]})
    assert wanted(home.lake, home.instance, STUDIES).ready
    made = home.make()
    assert made[:2] == [Unit("feature_dashboards", key) for key in SITES]


def test_residual_saes_rerun_the_trees_that_they_split(
    home: Home, tmp_path: Path, organism: LanguageModel
) -> None:
    """... and nothing else; that levels still sum is what the tables' checks say."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(organism.config.d_model, 64, generator=generator) / 8
    zeros = torch.zeros(organism.config.d_model)
    sae = StandardSAE(W, -0.2 * torch.ones(64), W.T.contiguous(), zeros)
    for layer in (0, 2):
        write_residual(tmp_path / f"resid{layer}", sae, layer)
    home.edit(residual_sae={"path": str(tmp_path / "resid{layer}"), "layers": [0, 2]})
    steps = {"feature_rdfa", "explored_prompts"}
    assert set(home.why()) == steps
    assert {unit.step for unit in home.make(only=["feature_rdfa", TREES])} == steps
    assert not steps & set(home.why())
    rows = home.lake.read("feature_rdfa", "tiny.L02").collect()
    found = rows.filter(node_kind="residual_feature")
    assert 2 in found["at_layer"]
    # They have no examples of their own; features of attention outputs keep theirs.
    assert found["strongest_token"].null_count() == found["promoted_token"].null_count()
    assert found["strongest_token"].null_count() == found.height
    assert rows.filter(node_kind="feature")["strongest_token"].null_count() == 0
    assert "residual_feature" in home.lake.read(TREES, "tiny").collect()["node_kind"]
    write_residual(tmp_path / "resid2", StandardSAE(W, torch.zeros(64), sae.W_dec, zeros), 2)
    assert steps <= set(home.why())


def test_a_new_layer_makes_itself_and_what_reads_all_layers(home: Home) -> None:
    home.edit(activations={"layers": [0, 2, 3]})
    home.study.__dict__.pop("layers", None)
    pending = home.work().pending()
    # Trees go through earlier layers, so their asset asks which layers there are.
    others = {unit for unit in pending if unit.partition not in ("tiny.L03", "tiny")}
    assert {unit.step for unit in others} == {"feature_rdfa"}
    assert Unit("attention_sae", "tiny.L03") in pending
    of_study = {unit.step for unit in pending if unit.partition == "tiny"}
    assert {"feature_labels", "reproduction", "study_dashboards"} <= of_study
    assert "ioi_baseline" not in of_study
    words = {reason.words for unit in pending for reason in pending[unit] if unit.step in of_study}
    assert "layers: [0, 2] -> [0, 2, 3]" in words


def test_the_daemon_is_asked_for_studies_that_say_so(home: Home) -> None:
    home.edit(sweep={"training_tokens": 10_000})
    assert not wanted(home.lake, home.instance, STUDIES).ready
    home.edit(automation=True)
    now = wanted(home.lake, home.instance, STUDIES)
    assert now.ready == {Unit("sae_frontier", key) for key in SITES}
    at_work = wanted(home.lake, home.instance, STUDIES, now.ready)
    assert not at_work.ready
    assert at_work.reasons == {}


def test_a_reader_sees_one_instant(home: Home, tiny: Materialized) -> None:
    """What is published while a body runs is neither read nor recorded."""
    inputs = tiny.inputs(home.lake)
    first = inputs.table("head_scores", "tiny").collect()
    recorded = dict(inputs.versions)
    spec = home.lake.declared.tables["head_scores"].science_columns
    provenance = home.lake.current("head_scores", "tiny").provenance
    rows = first.select(column.name for column in spec)
    for table, other in (("head_scores", rows.with_columns(pl.col("value") + 1)),):
        home.lake.write(table, "tiny", other, provenance)
    assert inputs.table("head_scores", "tiny").collect().equals(first)
    total = "SELECT sum(value) FROM head_scores WHERE study = $study"
    seen = inputs.sql(total, {"study": "tiny"}).item()
    assert seen == pytest.approx(first["value"].sum())
    assert home.lake.sql(total, {"study": "tiny"}).item() == pytest.approx(seen + first.height)
    assert inputs.versions == recorded


def test_a_kept_prompt_reruns_the_prompts_alone(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tmp_path))
    assert home.why() == {}
    file = keep_prompt("tiny", "Then John said that he")
    assert home.why() == {"explored_prompts": {f"file prompts/{file.name} is there now"}}
    assert [unit.step for unit in home.make()] == ["explored_prompts"]
    kept = home.lake.read("prompt_tokens", "tiny").filter(pl.col("prompt_set") == "kept")
    assert "".join(kept.sort("position").collect()["token"][1:]) == "Then John said that he"
    assert home.why() == {}
    file.unlink()
    assert home.why() == {"explored_prompts": {f"file prompts/{file.name} is gone"}}
