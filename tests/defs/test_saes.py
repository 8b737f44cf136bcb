"""Training as an asset: both sources of rows, and a run that is interrupted and run again."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from torch import Tensor

from mechinterp_assets.definitions import build_definitions
from mechinterp_assets.orchestration import shape
from mechinterp_assets.orchestration.partitions import range_tags
from mechinterp_assets.sae.trainer import Trainer
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import Study
from tests.defs.conftest import Materialized

Run = Callable[[Study], dg.ExecuteInProcessResult]


@dataclass(frozen=True)
class _Copy:
    """A copy of the tiny study's home, where attention_sae can be run with other settings."""

    lake: Lake
    scratch: Path
    run: Run


@pytest.fixture
def copy(tiny: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Copy]:
    home = tmp_path / "home"
    for name in ("lake", "tensors"):
        shutil.copytree(tiny.home / name, home / name, symlinks=True)
    monkeypatch.setenv("MECHINTERP_HOME", str(home))
    definitions = build_definitions()
    selection = dg.AssetSelection.assets("attention_sae").required_multi_asset_neighbors()
    job = dg.define_asset_job("train", selection=selection)
    merged = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job]))
    first, last = tiny.study.sites[0], tiny.study.sites[-1]

    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:

        def run(study: Study) -> dg.ExecuteInProcessResult:
            with monkeypatch.context() as patch:
                patch.setitem(shape.STUDIES, "tiny", study)
                return merged.resolve_job_def("train").execute_in_process(
                    instance=instance,
                    tags=range_tags(first, last),
                    raise_on_error=False,
                )

        yield _Copy(Lake(home / "lake"), home / "tensors" / ".scratch", run)


@contextmanager
def _dies_after(steps: int) -> Iterator[None]:
    """Training ends after so many steps of any SAE (tests/sae kills whole processes)."""
    taken, step = 0, Trainer.step

    def dying(trainer: Trainer, x: Tensor) -> None:
        nonlocal taken
        taken += 1
        if taken > steps:
            raise InterruptedError
        step(trainer, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", dying)
        yield


def _changed(study: Study, **settings: object) -> Study:
    changed = study.model_copy(update={"sae": study.sae.model_copy(update=settings)})
    changed._file = study.file
    return changed


def _weights(copy: _Copy, study: Study) -> dict[str, str]:
    rows = copy.lake.read("attention_sae", study.sites).collect().sort("layer")
    return dict(zip(rows["layer"], rows["weights_hash"], strict=True))


def test_a_buffer_too_large_is_refused_before_anything_is_harvested(
    tiny: Materialized, copy: _Copy
) -> None:
    result = copy.run(_changed(tiny.study, source="forward", buffer_rows=1 << 40))
    assert not result.success
    message = str(result.filter_events(lambda e: e.is_step_failure)[0].step_failure_data.error)
    assert "training 2 layers of tiny in lockstep with d_sae=128" in message
    assert f"buffer_rows={1 << 40} needs" in message
    assert "lower sae.d_sae, sae.batch_size or sae.buffer_rows, or train fewer layers" in message


@pytest.mark.parametrize("source", ["cache", "forward"])
def test_an_interrupted_run_continues_and_ends_bit_for_bit(
    tiny: Materialized, copy: _Copy, source: str
) -> None:
    study = _changed(
        tiny.study, source=source, checkpoint_every=20, training_tokens=30_720, buffer_rows=9_000
    )
    before = _weights(copy, study)
    # forward: both layers take their steps in turn; cache: the second layer is interrupted
    with _dies_after(50 if source == "forward" else 60 + 30):
        assert not copy.run(study).success
    published = _weights(copy, study)
    assert published[2] == before[2]  # nothing of an unfinished SAE is published
    assert len(list(copy.scratch.rglob("step-000000020"))) == 1
    assert copy.run(study).success
    resumed = _weights(copy, study)
    assert not list(copy.scratch.rglob("step-*"))
    rows = copy.lake.read("attention_sae", study.sites).collect()
    assert set(rows["training_source"]) == {source}
    assert resumed[2] != before[2]
    assert copy.run(study).success  # from step 0: the checkpoints were removed
    assert _weights(copy, study) == resumed


def test_the_sweep_has_a_row_per_variant_and_a_page(tiny: Materialized) -> None:
    frontier = tiny.lake.read("sae_frontier").collect()
    counts = frontier.group_by("layer").len().sort("layer").rows()
    assert counts == [(layer, len(tiny.study.sweep.variants)) for layer in tiny.study.layers]
    by_variant = frontier.filter(layer=2).select("sae_variant", "l0").rows()
    assert [name for name, _ in by_variant] == [
        "topk k=4",
        "topk k=16",
        "standard l1_coefficient=2",
    ]
    assert by_variant[0][1] <= 4 < by_variant[1][1] <= 16
    page = tiny.home / "dashboards" / "tiny.frontier" / "index.html"
    assert page.read_text().count("<circle") >= frontier.height
    assert not list((tiny.home / "tensors" / ".scratch").rglob("step-*"))


def test_activations_that_are_not_finite_stop_the_run(tiny: Materialized, copy: _Copy) -> None:
    study = _changed(tiny.study, source="cache")
    before, step, taken = _weights(copy, study), Trainer.step, 0

    def poisoned(trainer: Trainer, x: Tensor) -> None:
        nonlocal taken
        taken += 1
        step(trainer, x * float("inf") if taken == 70 else x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", poisoned)
        result = copy.run(study)
    assert not result.success
    message = str(result.filter_events(lambda e: e.is_step_failure)[0].step_failure_data.error)
    assert "tiny.L00: between steps 51 and 100 the activation rows became NaN" in message
    assert "check the model's weights" in message
    assert _weights(copy, study) == before
