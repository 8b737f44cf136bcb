"""Failures that the first page lists: of steps and checks, until their tables are made."""

from pathlib import Path

import dagster as dg
import polars as pl

from mechinterp_assets.app.failed_runs import failures
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance
from mechinterp_assets.storage.table_spec import polars_schema

SITES = dg.StaticPartitionsDefinition(["organism.L00", "organism.L01"])


@dg.asset(partitions_def=SITES)
def attention_sae() -> None:
    raise ValueError("no room for <b>64</b> features")


@dg.asset(partitions_def=SITES)
def corpus_documents() -> None:
    """Made, and found wanting."""


@dg.asset_check(asset=corpus_documents)
def is_good() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.ERROR)


@dg.asset_check(asset=corpus_documents)
def is_fine() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


def write(lake: Lake, partition: str) -> None:
    schema = polars_schema(table_spec("corpus_documents"))
    row = {name: 0 if kind.is_numeric() else "" for name, kind in schema.items()}
    rows = pl.DataFrame([row], schema=schema)
    lake.write("corpus_documents", partition, rows, Provenance("organism", "run", "0"))


def test_failures_are_listed_until_made_good(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    with dg.DagsterInstance.ephemeral() as instance:
        assert failures(instance, lake) == []
        run = dg.materialize(
            [attention_sae],
            partition_key="organism.L01",
            instance=instance,
            raise_on_error=False,
        )
        (failed,) = failures(instance, lake)
        assert (failed.run_id, failed.study, failed.step, failed.partitions, failed.why) == (
            run.run_id,
            "organism",
            "attention_sae",
            ("organism.L01",),
            "ValueError: no room for <b>64</b> features",
        )


def test_a_failed_check_counts_until_its_table_is_made_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    write(lake, "organism.L00")
    with dg.DagsterInstance.ephemeral() as instance:
        definitions = dg.Definitions([corpus_documents], asset_checks=[is_good, is_fine])
        job = definitions.resolve_implicit_global_asset_job_def()
        job.execute_in_process(
            instance=instance, partition_key="organism.L00", raise_on_error=False
        )
        # Such a run succeeds where no step fails; as with blocking checks, it is a failed one here.
        for record in instance.get_run_records():
            instance.report_run_failed(record.dagster_run)
        (failed,) = failures(instance, lake)
        assert (failed.step, failed.why) == ("corpus_documents", "check is_good failed")
        write(lake, "organism.L00")
        assert failures(instance, lake) == []


def test_a_run_without_a_failed_step_has_no_failure(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([corpus_documents], partition_key="organism.L00", instance=instance)
        for record in instance.get_run_records():
            instance.report_run_failed(record.dagster_run)
        assert failures(instance, Lake(tmp_path / "lake")) == []
