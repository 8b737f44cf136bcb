"""Long work says what runs, how far it is, and what failed when it fails."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from mechinterp_assets.app.materialize import (
    STUDY_TAG,
    StudyFailedError,
    run_tables,
)
from mechinterp_assets.app.progress import Progress, duration
from mechinterp_assets.app.run_progress import RunProgress, last_durations
from mechinterp_assets.defs.checks import CHECK_STEP
from mechinterp_assets.orchestration.logging import short_console_logger
from mechinterp_assets.orchestration.partitions import partition_tags
from mechinterp_assets.studies.study import Study
from mechinterp_assets.studies.study_file import load_study

STUDY = Path(__file__).resolve().parents[1] / "studies" / "tiny.yaml"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as opened:
        yield opened


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(STUDY)


def small(study: Study, work: Callable[[dg.AssetExecutionContext], None]) -> dg.Definitions:
    """Three assets in a row; the second does `work`."""
    per_study = dg.StaticPartitionsDefinition([study.study])
    sites = dg.StaticPartitionsDefinition(study.sites)

    @dg.asset(partitions_def=per_study)
    def corpus(context: dg.AssetExecutionContext) -> None:
        context.log.info("published corpus")

    @dg.asset(partitions_def=sites, backfill_policy=dg.BackfillPolicy.single_run())
    def saes(context: dg.AssetExecutionContext) -> None:
        work(context)

    @dg.asset(partitions_def=per_study)
    def pages() -> None: ...

    return dg.Definitions(
        assets=[corpus, saes, pages],
        loggers={"console": short_console_logger},
        executor=dg.in_process_executor,
    )


def run_all(
    definitions: dg.Definitions,
    study: Study,
    instance: dg.DagsterInstance,
    progress: Progress | None = None,
) -> None:
    """A run per asset, as a study's runs are made and watched."""
    job = definitions.resolve_implicit_global_asset_job_def()
    watch = None
    if progress is not None:
        watch = RunProgress(progress, last_durations(instance, {STUDY_TAG: study.study}))
    names = ["corpus", "saes", "pages"]
    for name in names:
        keys = study.sites if name == "saes" else [study.study]
        tags = partition_tags(keys[0], keys[-1])
        if watch is not None:
            watch.expect([name], names[names.index(name) + 1 :])
        run_tables(job, instance, [name], {**tags, STUDY_TAG: study.study}, watch)


def test_a_silent_block_shows_that_it_is_alive() -> None:
    lines: list[str] = []
    progress = Progress(lines.append, every=0.1)
    with progress.doing("reading"):
        progress.heard("published corpus\nmore")
        time.sleep(0.55)
    assert 3 <= len(lines) <= 5
    assert all(re.fullmatch(r"reading: 0\.\d s so far; last: published corpus", x) for x in lines)
    time.sleep(0.2)
    before = len(lines)
    assert before <= 5  # nothing after the block
    progress.say("word")
    with progress.doing("talking"):
        for _ in range(20):
            progress.say("word")
            time.sleep(0.01)
    assert set(lines[before:]) <= {"word"}


def test_durations_are_for_readers() -> None:
    seconds = (0.44, 12.3, 59.7, 200, 7500)
    assert [*map(duration, seconds)] == ["0.4 s", "12 s", "1 min 00 s", "3 min 20 s", "2 h 05 min"]


def test_steps_are_counted_timed_and_estimated(study: Study, instance: dg.DagsterInstance) -> None:
    definitions = small(study, lambda context: time.sleep(0.5))
    first: list[str] = []
    run_all(definitions, study, instance, Progress(first.append))
    steps = [re.sub(r"in [\d.]+ s", "in T", line) for line in first]
    assert steps == [
        f"{n}/3 {step} {what}"
        for n, step in enumerate(("corpus", "saes", "pages"), start=1)
        for what in ("started", "done in T")
    ]
    again: list[str] = []
    run_all(definitions, study, instance, Progress(again.append))
    about = next(line for line in again if line.startswith("2/3 saes started, about "))
    assert 0.5 <= float(about.split()[-2]) < 5
    assert any(re.match(r"1/3 corpus done in .*; about [\d.]+ s left", line) for line in again)


def test_what_runs_is_named_while_it_is_silent(study: Study, instance: dg.DagsterInstance) -> None:
    lines: list[str] = []
    definitions = small(study, lambda context: time.sleep(1.0))
    run_all(definitions, study, instance, Progress(lines.append, every=0.3))
    alive = [line for line in lines if re.match(r"2/3 saes: [\d.]+ s so far", line)]
    assert alive
    assert alive[0].endswith("; last: published corpus")


def test_a_failure_is_told_when_it_happens(study: Study, instance: dg.DagsterInstance) -> None:
    def fail(context: dg.AssetExecutionContext) -> None:
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise ValueError("sae.d_sae: 7 is too small; raise it") from error

    lines: list[str] = []
    with pytest.raises(StudyFailedError, match="a run of tiny failed"):
        run_all(small(study, fail), study, instance, Progress(lines.append))
    assert re.fullmatch(r"2/3 saes FAILED after [\d.]+ s: ValueError: sae.d_sae: 7 .*", lines[-1])


def test_an_interruption_ends_the_run_and_the_study(
    study: Study, instance: dg.DagsterInstance
) -> None:
    def interrupt(context: dg.AssetExecutionContext) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        run_all(small(study, interrupt), study, instance)
    statuses = [run.status for run in instance.get_runs()]
    assert statuses == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS]


def checked(
    study: Study, check: Callable[[], Iterator[dg.AssetCheckEvaluation | dg.Output[None]]]
) -> dg.Definitions:
    """Stages of which the first has checks: `warns`, a warning, and `blocks`, an error."""
    unchecked = small(study, lambda context: None)
    specs = [
        dg.AssetCheckSpec("warns", asset="corpus"),
        dg.AssetCheckSpec("blocks", asset="corpus", blocking=True),
    ]

    @dg.multi_asset_check(name="corpus_checks", specs=specs, op_tags={CHECK_STEP: "corpus"})
    def corpus_checks() -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
        yield from check()

    return dg.Definitions.merge(unchecked, dg.Definitions(asset_checks=[corpus_checks]))


def evaluation(name: str, passed: bool) -> dg.AssetCheckEvaluation:
    warn = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("corpus"),
        check_name=name,
        passed=passed,
        severity=warn if name == "warns" else dg.AssetCheckSeverity.ERROR,
        blocking=name == "blocks",
        partition="tiny",
        description="1 row: token 5",
    )


def test_checks_are_no_steps_and_are_told_where_they_fail(
    study: Study, instance: dg.DagsterInstance
) -> None:
    def check(fails: set[str]) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
        for name in ("warns", "blocks"):
            yield evaluation(name, name not in fails)
            yield dg.Output(None, f"corpus_{name}")

    quiet: list[str] = []
    passing = checked(study, lambda: check(set()))
    run_all(passing, study, instance, Progress(quiet.append))
    assert quiet[0] == "1/3 corpus started"
    assert not any("check" in line for line in quiet)
    warned: list[str] = []
    run_all(checked(study, lambda: check({"warns"})), study, instance, Progress(warned.append))
    told = "check warns of corpus of tiny warns: 1 row: token 5"
    assert [line for line in warned if "check" in line] == [told]
    failed: list[str] = []
    blocked = checked(study, lambda: check({"blocks"}))
    with pytest.raises(StudyFailedError, match="check blocks of corpus failed"):
        run_all(blocked, study, instance, Progress(failed.append))
    told = "check blocks of corpus of tiny FAILED: 1 row: token 5"
    assert [line for line in failed if "check" in line] == [told]


def test_checks_that_cannot_run_are_told(study: Study, instance: dg.DagsterInstance) -> None:
    def check() -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
        raise ValueError("corpus has no data for tiny")
        yield

    lines: list[str] = []
    with pytest.raises(StudyFailedError):
        run_all(checked(study, check), study, instance, Progress(lines.append))
    assert "corpus_checks FAILED: ValueError: corpus has no data for tiny" in lines


def test_only_successes_are_estimates(study: Study, instance: dg.DagsterInstance) -> None:
    def fail(context: dg.AssetExecutionContext) -> None:
        raise ValueError

    with pytest.raises(StudyFailedError):
        run_all(small(study, fail), study, instance)
    assert set(last_durations(instance, {STUDY_TAG: "tiny"})) == {"corpus"}
    lines: list[str] = []
    watch = RunProgress(Progress(lines.append), {"corpus": 1.0})
    watch.expect(["corpus", "saes"], [])
    assert watch._left() == ""  # a step that never ran has no duration
